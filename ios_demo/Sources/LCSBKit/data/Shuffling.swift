import Foundation

// A seeded order of any number of things, the same in every language. Specification and test vectors: docs/data.md.

private let low: UInt64 = 0xFFFF_FFFF

/// Output number `position` (from 0) of the generator that starts at `seed` (Steele, Lea, Flood, OOPSLA 2014).
func splitmix64(_ seed: UInt64, _ position: UInt64) -> UInt64 {
    var z = seed &+ (position &+ 1) &* 0x9e37_79b9_7f4a_7c15
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
}

/// The numbers from 0 to `count` - 1 in the order of `epoch`, in a mapped file in `spool` that may be written to. `count` is at most 2^32.
///
/// Number i's hash is output i of the generator that starts at output `epoch` of the generator that starts at `seed`. They are ordered by
/// its upper 32 bits, then by i: a sort of 64-bit integers whose lower half is i.
func shuffled(_ count: Int, seed: Int, epoch: Int, _ spool: URL) throws -> Mapped<UInt64> {
    let start = splitmix64(UInt64(bitPattern: Int64(seed)), UInt64(bitPattern: Int64(epoch)))
    let file = try Spool<UInt64>(spool)
    for number in 0..<UInt64(count) { try file.append(splitmix64(start, number) & ~low | number) }
    let keys = try file.mapped(writable: true)
    keys.sort()
    for index in 0..<count { keys[index] &= low }
    return keys
}
