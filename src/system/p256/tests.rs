//! Held against ring's own functions, which test binaries keep: only the agent is linked
//! with the stand-ins.

use sha2::{Digest, Sha256};

use super::*;

unsafe extern "C" {
    #[link_name = "ring_core_0_17_14__p256_point_mul_base"]
    fn ring_point_mul_base(r: *mut Point, scalar: *const Limbs);
    #[link_name = "ring_core_0_17_14__p256_point_mul_base_vartime"]
    fn ring_point_mul_base_vartime(r: *mut Point, scalar: *const Limbs);
    #[link_name = "ring_core_0_17_14__p256_mul_mont"]
    fn mul_mont(r: *mut Limbs, a: *const Limbs, b: *const Limbs);
}

type Multiply = unsafe extern "C" fn(*mut Point, *const Limbs);

/// What multiplies by a secret and by a public scalar: ours and ring's.
const PAIRS: [(Multiply, Multiply); 2] = [
    (point_mul_base, ring_point_mul_base),
    (point_mul_base_vartime, ring_point_mul_base_vartime),
];

/// The order of the base point.
const ORDER: Limbs = [
    0xf3b9_cac2_fc63_2551,
    0xbce6_faad_a717_9e84,
    0xffff_ffff_ffff_ffff,
    0xffff_ffff_0000_0000,
];

fn multiple(multiply: Multiply, scalar: Limbs) -> Point {
    let mut point = Point([[0; 4]; 3]);
    // SAFETY: both pointers are to live values of ring's layout.
    unsafe { multiply(&mut point, &scalar) };
    point
}

fn product(a: Limbs, b: Limbs) -> Limbs {
    let mut r = [0; 4];
    // SAFETY: all pointers are to live values of ring's layout.
    unsafe { mul_mont(&mut r, &a, &b) };
    r
}

/// Jacobian coordinates of one point are many: the affine ones are `x / z²` and `y / z³`.
fn is_same(a: &Point, b: &Point) -> bool {
    let [a, b] = [a, b].map(|&Point([x, y, z])| (x, y, z, product(z, z)));
    product(a.0, b.3) == product(b.0, a.3)
        && product(a.1, product(b.3, b.2)) == product(b.1, product(a.3, a.2))
}

fn is_infinite(point: &Point) -> bool {
    point.0[2] == [0; 4]
}

/// Any scalar below the order: the same for the same number.
fn scalar(number: u64) -> Limbs {
    let digest = Sha256::digest(number.to_le_bytes());
    let mut limbs = [0; 4];
    for (limb, bytes) in limbs.iter_mut().zip(digest.chunks_exact(8)) {
        *limb = bytes
            .iter()
            .fold(0, |limb, &byte| limb << 8 | u64::from(byte));
    }
    limbs[3] %= ORDER[3];
    limbs
}

/// Small ones, every power of two below the order, and those just below the order.
fn edges() -> impl Iterator<Item = Limbs> {
    let powers = (0..4).flat_map(|at| (0..64).map(move |bit| (at, bit)));
    (1..40)
        .map(|small| [small, 0, 0, 0])
        .chain(powers.map(|(at, bit)| {
            let mut limbs = [0; 4];
            limbs[at] = 1 << bit;
            limbs
        }))
        .chain((1..40).map(|below| [ORDER[0] - below, ORDER[1], ORDER[2], ORDER[3]]))
}

#[test]
fn any_multiple_of_the_base_point_is_the_one_ring_makes_from_its_table() {
    for scalar in edges().chain((0..500).map(scalar)) {
        for (ours, rings) in PAIRS {
            let (ours, rings) = (multiple(ours, scalar), multiple(rings, scalar));
            assert!(!is_infinite(&ours), "{scalar:x?}");
            assert!(is_same(&ours, &rings), "{scalar:x?}");
        }
    }
}

#[test]
fn different_multiples_are_told_apart() {
    let [two, three] = [2, 3].map(|small| multiple(point_mul_base, [small, 0, 0, 0]));
    assert!(!is_same(&two, &three));
}

#[test]
fn no_multiple_at_all_is_the_point_at_infinity() {
    for (ours, rings) in PAIRS {
        assert!(is_infinite(&multiple(rings, [0; 4])));
        assert!(is_infinite(&multiple(ours, [0; 4])));
    }
}
