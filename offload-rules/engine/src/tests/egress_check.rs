//! Rules that count, and whose packets do not leave.

use super::*;

/// Each window of the counters one flow's rule counts a thousand packets to vif 2, of which so many leave.
fn run(bed: &mut Bed, windows: usize, leaving: u64) {
    for _ in 0..windows {
        bed.hit(1, false, 1000);
        *bed.nic.lock().unwrap().left.entry(vif(2)).or_default() += leaving;
        bed.run(500);
    }
}

#[test]
fn a_shape_that_is_counted_and_never_leaves_goes_back_to_software() {
    let mut bed = Bed::new();
    bed.nic.lock().unwrap().left = [(vif(1), 0), (vif(2), 0)].into();
    bed.ask(install(id(1)));
    bed.ask(install_as(id(9), Kind { shape: 6, ..PLAIN }, 1));
    bed.settle();
    run(&mut bed, 20, 1000);
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware), "all of it leaves");
    run(&mut bed, 20, 10);
    assert_eq!(bed.state(id(1)), Some((Tier::Software, Some(NotOffloaded::NotHonoured))));
    assert_eq!(bed.tier(id(9)), Some(Tier::Hardware), "another shape, which has counted nothing");
    let status = bed.engine.status(bed.now);
    let shape = status.shapes.iter().find(|shape| shape.shape == "17").unwrap();
    assert_eq!((shape.refused, shape.proven), (Some(NotOffloaded::NotHonoured), false));
    bed.assert_healthy();
}

#[test]
fn nothing_is_suspected_of_a_port_that_does_not_tell() {
    let mut bed = Bed::new();
    bed.ask(install(id(1)));
    bed.settle();
    for _ in 0..20 {
        bed.hit(1, false, 1000);
        bed.run(500);
    }
    assert_eq!(bed.tier(id(1)), Some(Tier::Hardware));
}
