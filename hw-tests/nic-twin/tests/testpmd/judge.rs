//! dpdk-testpmd as a judge: DPDK's own program drives the twin by its own command line.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// The two twins of a run: what arrives at the first is the scenario's; both can send.
pub(crate) const FIRST: u16 = 2;
/// See [`FIRST`].
pub(crate) const SECOND: u16 = 3;

/// One run of testpmd over two twins, each over a pair of capture files.
pub(crate) struct Judge {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    /// All output so far.
    pub(crate) log: String,
    folder: tempfile::TempDir,
}

pub(crate) fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap();
    let built = [folder.join("libnic_twin.so"), folder.parent().unwrap().join("libnic_twin.so")];
    built.into_iter().find(|path| path.exists()).expect("cargo builds libnic_twin.so with the tests")
}

fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    // The classic format: magic, version 2.4, no correction, snap length, Ethernet.
    let mut octets = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        octets.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = frame.len() as u32;
        for word in [0, 0, length, length] {
            octets.extend(word.to_le_bytes());
        }
        octets.extend(frame);
    }
    std::fs::write(path, octets).unwrap();
}

fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let octets = std::fs::read(path).unwrap();
    let mut rest = octets.get(24..).expect("a capture has a header");
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        frames.push(rest[16..16 + length].to_vec());
        rest = &rest[16 + length..];
    }
    frames
}

impl Judge {
    /// Starts testpmd; `arguments` are more of the first twin's, `arriving` what its wire brings once forwarding starts.
    pub(crate) fn start(arguments: &str, arriving: &[Vec<u8>]) -> Judge {
        // EAL takes no driver from below a folder that everybody may write to.
        // With the number of this process in its name `hw-tests sweep` finds it when this process was killed.
        static JUDGES: AtomicU32 = AtomicU32::new(0);
        let name = format!("sluicegate-{}-{}-", std::process::id(), JUDGES.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::Builder::new().prefix(&name).tempdir_in("/run").expect("these tests need root");
        let at = |name: &str| folder.path().join(name);
        std::fs::copy(library(), at("libnic_twin.so")).unwrap();
        write_capture(&at("in0.pcap"), arriving);
        write_capture(&at("in1.pcap"), &[]);
        let capture = |n: u8| {
            let [from, to] = ["in", "out"].map(|way| at(&format!("{way}{n}.pcap")));
            format!("--vdev=net_pcap{n},rx_pcap={},tx_pcap={}", from.display(), to.display())
        };
        let mut child = Command::new("stdbuf")
            .args(["-oL", "dpdk-testpmd", "-d"])
            .arg(at("libnic_twin.so"))
            .args(["--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0-1"])
            // What files it makes all the same go with the folder.
            .env("RUNTIME_DIRECTORY", folder.path())
            .args([capture(0), capture(1)])
            .arg(format!("--vdev=net_twin0,port=net_pcap0{arguments}"))
            .arg("--vdev=net_twin1,port=net_pcap1")
            .args(["--", "-i", "--rxq=2", "--txq=2", "--total-num-mbufs=2048", "--forward-mode=rxonly"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dpdk-testpmd is there after make setup");
        let (sender, lines) = channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let input = child.stdin.take().unwrap();
        let mut judge = Judge { child, input, lines, log: String::new(), folder };
        judge.wait("Done");
        judge.tell("set verbose 1");
        judge
    }

    /// Types a line.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("testpmd listens");
    }

    fn read(&mut self, patience: Duration) -> Option<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                self.log.push_str(&line);
                self.log.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => panic!("testpmd ended:\n{}", self.log),
        }
    }

    /// Waits for a line with this text.
    pub(crate) fn wait(&mut self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Some(line) = self.read(Duration::from_millis(200))
                && line.contains(text)
            {
                return line;
            }
        }
        panic!("{text:?} did not come:\n{}", self.log)
    }

    /// Types a line and waits for an answer with this text.
    pub(crate) fn ask(&mut self, line: &str, answer: &str) -> String {
        self.tell(line);
        self.wait(answer)
    }

    /// Types a line again and again, until an answer has this text.
    pub(crate) fn until(&mut self, line: &str, answer: &str) {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            self.tell(line);
            while let Some(got) = self.read(Duration::from_millis(100)) {
                if got.contains(answer) {
                    return;
                }
            }
        }
        panic!("{line:?} never answered {answer:?}:\n{}", self.log)
    }

    /// A rule on the first twin that is taken.
    pub(crate) fn rule(&mut self, rule: &str) {
        self.ask(&format!("flow create {FIRST} {rule}"), "created");
    }

    /// Ends testpmd; what left by the two wires.
    pub(crate) fn end(mut self) -> [Vec<Vec<u8>>; 2] {
        self.tell("stop");
        self.tell("quit");
        self.wait("Bye...");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}:\n{}", self.log);
        [0, 1].map(|n| read_capture(&self.folder.path().join(format!("out{n}.pcap"))))
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        // Ended already, or the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
