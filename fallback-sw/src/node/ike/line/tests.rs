use super::*;

const KEY: &str = "000102030405060708090a0b0c0d0e0f10111213";

fn add(change: &str, to: &str) -> Result<Request, Refused> {
    let line = format!(
        "add-sa dir=in src=10.9.0.2 dst=10.9.0.1 spi=c0000001 key={KEY} esn=1 window=32 encap=1 sport=4500 dport=4500 if_id=7"
    );
    assert!(line.contains(change), "{change}");
    Request::parse(line.replacen(change, to, 1).as_bytes())
}

#[test]
fn an_sa_is_read_as_it_was_said() {
    let Request::AddSa(sa) = add("if_id=7", "if_id=7 soft_seconds=5 hard_bytes=9 newer=1").unwrap() else { panic!() };
    assert_eq!((sa.spi, sa.if_id, sa.window, sa.esn), (0xc000_0001, 7, 32, true));
    assert_eq!((sa.udp, sa.soft.seconds, sa.hard.bytes), (Some((4500, 4500)), 5, 9));
    assert_eq!(sa.key.material().len(), 20);
}

#[test]
fn broken_lines_are_refused_and_no_key_is_told() {
    let long = KEY.repeat(3);
    for (change, to) in [
        (KEY, "00"),
        (KEY, long.as_str()),
        (KEY, "zz0102030405060708090a0b0c0d0e0f10111213"),
        (&KEY[1..], ""),
        ("dir=in", "dir=up"),
        ("dir=in", ""),
        ("src=10.9.0.2", "src=fe80::1"),
        ("spi=c0000001", "spi=100000000"),
        ("esn=1", "esn=2"),
        ("sport=4500", "sport=0"),
        ("dport=4500", "dport=65536"),
        ("window=32", "window=-1"),
        ("if_id=7", "if_id=7 if_id=7"),
        ("if_id=7", "if_id"),
        ("add-sa", "add-all"),
        ("if_id=7", "if_id=7 soft_seconds=x"),
    ] {
        let error = add(change, to).unwrap_err();
        assert!(matches!(error, Refused::Bad(_)), "{change} {to}: {error:?}");
        assert!(!error.to_string().contains("0102"), "{error}");
    }
    for line in [&b""[..], b" ", b"\xff\xfe", b"hello", b"get-spi x", b"hello version=1 charon=g events=0"] {
        assert!(matches!(Request::parse(line), Err(Refused::Bad(_))), "{line:?}");
    }
    assert_eq!(Request::parse(b"hello version=2 charon=1 events=0"), Err(Refused::Version(2)));
}
