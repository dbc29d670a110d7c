package lcsbmobile.core.data

import java.io.File

// A seeded order of any number of things, the same in every language. Specification and test vectors: docs/data.md.

private const val GAMMA = -0x61c8864680b583ebL // 9e3779b97f4a7c15
private const val FIRST_MULTIPLIER = -0x40a7b892e31b1a47L // bf58476d1ce4e5b9
private const val SECOND_MULTIPLIER = -0x6b2fb644ecceee15L // 94d049bb133111eb
private const val LOW = 0xFFFFFFFFL

/** Output number [position] (from 0) of the generator that starts at [seed] (Steele, Lea, Flood, OOPSLA 2014). */
internal fun splitmix64(seed: Long, position: Long): Long {
    var z = seed + (position + 1) * GAMMA
    z = (z xor (z ushr 30)) * FIRST_MULTIPLIER
    z = (z xor (z ushr 27)) * SECOND_MULTIPLIER
    return z xor (z ushr 31)
}

/**
 * The numbers from 0 to [count] - 1 in the order of [epoch], in a mapped file in [spool] that may be written to. [count] is at most 2^32.
 *
 * Number i's hash is output i of the generator that starts at output [epoch] of the generator that starts at [seed]. They are ordered by
 * its upper 32 bits, then by i: a sort of 64-bit integers whose lower half is i.
 */
internal fun shuffled(count: Long, seed: Long, epoch: Long, spool: File): MappedLongs {
    val start = splitmix64(seed, epoch)
    val keys = Spool(spool).use { file ->
        for (number in 0 until count) file.append(splitmix64(start, number) and LOW.inv() or number)
        file.longs()
    }
    keys.sort()
    for (index in 0 until count) keys[index] = keys[index] and LOW
    return keys
}
