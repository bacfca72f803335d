//! How fast rules go in and out, and how fast packets are matched among them: `insert_rate [RULES]`. Figures are of the thread's time
//! on a CPU, so that a busy machine does not spoil them.

use std::time::Duration;

use nic_twin::model::{Action, Attr, Faults, Frame, Item, ItemKind, Nic, Outcome, Profile, RuleId};

fn main() {
    let rules = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(1_000_000u32);
    let Some(profile) = Profile::named("twin") else { return };
    let mut nic = Nic::new(profile, Faults::default());
    nic.add_port(0, 1);
    nic.add_port(1, 1);
    let attr = Attr { transfer: true, ..Attr::default() };
    let port = 0u16.to_le_bytes();
    let (mut ip_mask, mut tcp_mask) = ([0; 20], [0; 20]);
    ip_mask[8..10].fill(0xff);
    ip_mask[12..20].fill(0xff);
    tcp_mask[..4].fill(0xff);
    let mut frame = [0u8; 64];
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 6]);
    frame[46] = 0x50;
    let key = |number: u32| {
        let (mut ip, mut tcp) = ([0; 20], [0; 20]);
        (ip[8], ip[9]) = (64, 6);
        ip[12..16].copy_from_slice(&(0x0a00_0000 + number / 50_000).to_be_bytes());
        ip[16..20].copy_from_slice(&[192, 0, 2, 1]);
        tcp[..2].copy_from_slice(&((number % 50_000) as u16).to_be_bytes());
        tcp[2..4].copy_from_slice(&443u16.to_be_bytes());
        (ip, tcp)
    };
    let insert = |nic: &mut Nic, number: u32| {
        let (ip, tcp) = key(number);
        let items = [
            Item { kind: ItemKind::RepresentedPort, spec: Some(&port), last: None, mask: None },
            Item::any_of(ItemKind::Eth),
            Item::masked(ItemKind::Ipv4, &ip, &ip_mask),
            Item::masked(ItemKind::Tcp, &tcp, &tcp_mask),
        ];
        let actions = [
            Action::Count(0),
            Action::SetMacSrc([2; 6]),
            Action::SetMacDst([4; 6]),
            Action::SetTtl(63),
            Action::RepresentedPort(1),
        ];
        nic.insert(0, &attr, &items, &actions, Duration::ZERO)
    };
    let begin = on_cpu();
    let ids: Vec<RuleId> = (0..rules).filter_map(|number| insert(&mut nic, number).ok()).map(|rule| rule.id).collect();
    report("inserts", ids.len(), begin);

    let begin = on_cpu();
    let (mut packet, mut forwarded) = (Frame::default(), 0);
    for round in 0..rules {
        let (ip, tcp) = key(round.wrapping_mul(2_654_435_761) % rules);
        frame[26..34].copy_from_slice(&ip[12..20]);
        frame[34..38].copy_from_slice(&tcp[..4]);
        packet.load(&frame);
        forwarded += u32::from(matches!(nic.process(0, &mut packet, Duration::ZERO), Outcome::Forward { .. }));
    }
    report("packets", forwarded as usize, begin);

    let begin = on_cpu();
    let gone = ids.into_iter().filter(|&id| nic.destroy(id).is_ok()).count();
    report("destroys", gone, begin);
}

/// Time that this thread was on a CPU (proc(5): schedstat).
fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default())
}

fn report(what: &str, count: usize, begin: Duration) {
    let seconds = (on_cpu() - begin).as_secs_f64();
    println!("{count} {what} in {seconds:.2} s: {:.2} M/s", count as f64 / seconds / 1e6);
}
