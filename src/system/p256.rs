//! P-256 without ring's table of multiples of the base point: 148 KiB of a release binary,
//! there to save a fraction of a millisecond per TLS handshake. The base point is multiplied
//! as any other point is, by ring's own constant-time code, which is how ring itself does it
//! for P-384. Must not do any arithmetic of its own.
//!
//! `build.rs` decides whether this takes the table's place (`--wrap`), and only for the very
//! release of ring whose names and types these are.

/// As ring has them on 64-bit little-endian machines: the lowest first.
type Limbs = [u64; 4];

/// Jacobian coordinates, each in Montgomery form.
#[repr(C)]
pub struct Point([Limbs; 3]);

/// The base point, affine, in Montgomery form: `GENERATOR` in ring's `p256.rs`.
const BASE_X: Limbs = [
    0x79e7_30d4_18a9_143c,
    0x75ba_95fc_5fed_b601,
    0x79fb_732b_7762_2510,
    0x1890_5f76_a537_55c6,
];
const BASE_Y: Limbs = [
    0xddf2_5357_ce95_560a,
    0x8b4a_b8e4_ba19_e45c,
    0xd2e8_8688_dd21_f325,
    0x8571_ff18_2588_5d85,
];

unsafe extern "C" {
    /// Any point times any scalar below the order, in constant time.
    #[link_name = "ring_core_0_17_14__p256_point_mul"]
    fn point_mul(r: *mut Point, scalar: *const Limbs, x: *const Limbs, y: *const Limbs);
}

/// Stands in for ring's function for secret scalars: ECDH and ECDSA keys and signatures.
// SAFETY: name and signature are ring's, which passes valid pointers; so does this.
#[unsafe(export_name = "__wrap_ring_core_0_17_14__p256_point_mul_base")]
unsafe extern "C" fn point_mul_base(r: *mut Point, scalar: *const Limbs) {
    unsafe { point_mul(r, scalar, &BASE_X, &BASE_Y) }
}

/// Stands in for ring's function for public scalars: checking ECDSA signatures.
// SAFETY: as above.
#[unsafe(export_name = "__wrap_ring_core_0_17_14__p256_point_mul_base_vartime")]
unsafe extern "C" fn point_mul_base_vartime(r: *mut Point, scalar: *const Limbs) {
    unsafe { point_mul(r, scalar, &BASE_X, &BASE_Y) }
}

#[cfg(test)]
mod tests;
