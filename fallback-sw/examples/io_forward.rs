//! Forwards frames between two devices and does nothing else: what the ports cost, to be compared with `dpdk-testpmd`.
//!
//! ```text
//! io_forward forward  DRIVER IN OUT SECONDS [BATCH]     DRIVER: af_packet, af_xdp
//! io_forward generate DRIVER DEVICE OCTETS SECONDS
//! ```
//!
//! On two veth pairs, one host's end each in a namespace, the forwarder on one core and the generator on another:
//!
//! ```text
//! ip netns add gen; ip netns add sink
//! ip link add left type veth peer name eth0 netns gen;   ip link set left up;  ip -n gen link set eth0 up
//! ip link add right type veth peer name eth0 netns sink; ip link set right up; ip -n sink link set eth0 up
//! ip netns exec gen taskset -c 1 io_forward generate af_packet eth0 60 12 &
//! taskset -c 0 io_forward forward af_packet left right 10
//! taskset -c 0 dpdk-testpmd --no-huge -m 512 --no-pci -l 0,0 --vdev net_af_packet0,iface=left --vdev net_af_packet1,iface=right -- --forward-mode=io
//! ```
//!
//! The figure to compare is the CPU time of a frame: 1 / it is what a core that does nothing else forwards, however fast the
//! generator is.

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use fallback_sw::{
    io::{Port, af_packet, af_xdp},
    packet::Packet,
};

/// Pause when no frame waits; a ring holds more frames than come in this time.
const IDLE: Duration = Duration::from_micros(500);

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["forward", driver, from, to, seconds, batch @ ..] => {
            let batch = batch.first().map_or(Ok(64), |batch| batch.parse()).context("BATCH is not a number")?;
            forward(open(driver, from)?.as_mut(), open(driver, to)?.as_mut(), parse_seconds(seconds)?, batch)
        }
        ["generate", driver, device, octets, seconds] => {
            let octets = octets.parse().context("OCTETS is not a number")?;
            generate(open(driver, device)?.as_mut(), octets, parse_seconds(seconds)?)
        }
        _ => bail!("usage: io_forward forward DRIVER IN OUT SECONDS [BATCH] | generate DRIVER DEVICE OCTETS SECONDS"),
    }
}

fn parse_seconds(text: &str) -> Result<Duration> {
    Ok(Duration::from_secs(text.parse().context("SECONDS is not a whole number")?))
}

fn open(driver: &str, device: &str) -> Result<Box<dyn Port>> {
    let mut ports = match driver {
        "af_packet" => af_packet::open(device, 1)?,
        "af_xdp" => af_xdp::open(device, 1)?.0,
        other => bail!("driver '{other}' is not known: use af_packet or af_xdp"),
    };
    ports.pop().context("the driver gave no port")
}

/// CPU time of this thread so far, in user and kernel mode.
fn cpu_time() -> Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.with_context(|| format!("{path} does not start with a number"))?))
}

fn forward(from: &mut dyn Port, to: &mut dyn Port, time: Duration, batch: usize) -> Result<()> {
    let (mut frames, mut spare) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
    let (mut received, mut sent, mut batches, mut idle) = (0usize, 0usize, 0u64, 0u64);
    // The clock starts with the first frame.
    while from.receive(&mut frames, &mut spare, batch)? == 0 {}
    let (start, cpu) = (Instant::now(), cpu_time()?);
    while start.elapsed() < time {
        let count = from.receive(&mut frames, &mut spare, batch)?;
        if count == 0 && frames.is_empty() {
            // Frames gather, so that CPU time is spent on them and not on looking for them.
            idle += 1;
            thread::sleep(IDLE);
            continue;
        }
        received += frames.len();
        batches += 1;
        sent += to.transmit(&mut frames, &mut spare)?;
    }
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), (cpu_time()? - cpu).as_secs_f64());
    let per = |n: f64| n / received.max(1) as f64;
    println!(
        "{}: received {received} ({:.3} Mpps), sent {sent} ({:.3} Mpps), {:.1} a batch, {idle} pauses, lost at receive {}, \
         CPU {:.0} ns a frame ({:.0} % of a core)",
        from.driver(),
        received as f64 / elapsed / 1e6,
        sent as f64 / elapsed / 1e6,
        received as f64 / batches.max(1) as f64,
        from.lost(),
        per(cpu) * 1e9,
        cpu / elapsed * 100.0
    );
    Ok(())
}

fn generate(port: &mut dyn Port, octets: usize, time: Duration) -> Result<()> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.resize(octets.max(60), 0x5a);
    let mut frames: Vec<_> = (0..64).map(|_| Packet::from_frame(&frame)).collect();
    let (mut spare, mut sent, start) = (Vec::with_capacity(64), 0usize, Instant::now());
    while start.elapsed() < time {
        sent += port.transmit(&mut frames, &mut spare)?;
        std::mem::swap(&mut frames, &mut spare);
    }
    println!(
        "{}: generated {sent} frames, {:.3} Mpps",
        port.driver(),
        sent as f64 / start.elapsed().as_secs_f64() / 1e6
    );
    Ok(())
}
