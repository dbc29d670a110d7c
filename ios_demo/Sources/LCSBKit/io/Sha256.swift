import Foundation

#if canImport(CryptoKit)
import CryptoKit

/// SHA-256 of bytes that come in pieces.
struct Sha256 {
    private var digest = SHA256()

    mutating func update(_ bytes: UnsafeRawBufferPointer) { digest.update(bufferPointer: bytes) }

    /// Lower-case hex.
    func hex() -> String { digest.finalize().map { padded(String($0, radix: 16), 2) }.joined() }
}
#else
/// SHA-256 of bytes that come in pieces (FIPS 180-4); Apple's systems bring it.
struct Sha256 {
    private var state: [UInt32] = [
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    ]
    private var pending: [UInt8] = []
    private var length: UInt64 = 0

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        length &+= UInt64(bytes.count)
        var at = 0
        if !pending.isEmpty {
            at = min(64 - pending.count, bytes.count)
            pending.append(contentsOf: bytes[0..<at])
            if pending.count < 64 { return }
            pending.withUnsafeBytes { Self.compress($0.baseAddress!, 1, &state) }
            pending.removeAll(keepingCapacity: true)
        }
        let blocks = (bytes.count - at) / 64
        if blocks > 0 { Self.compress(bytes.baseAddress! + at, blocks, &state) }
        pending.append(contentsOf: bytes[(at + 64 * blocks)...])
    }

    /// Lower-case hex.
    func hex() -> String {
        var last = self
        var tail: [UInt8] = [0x80]
        tail.append(contentsOf: [UInt8](repeating: 0, count: (119 - pending.count) % 64))
        withUnsafeBytes(of: (length &* 8).bigEndian) { tail.append(contentsOf: $0) }
        tail.withUnsafeBytes { last.update($0) }
        return last.state.map { padded(String($0, radix: 16), 8) }.joined()
    }

    private static let constants: [UInt32] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    ]

    private static func compress(_ blocks: UnsafeRawPointer, _ count: Int, _ state: inout [UInt32]) {
        constants.withUnsafeBufferPointer { k in
            withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 64) { w in
                for block in 0..<count {
                    let bytes = blocks + 64 * block
                    for i in 0..<16 { w[i] = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self)) }
                    for i in 16..<64 {
                        let (x, y) = (w[i - 15], w[i - 2])
                        let s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >> 3)
                        let s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >> 10)
                        w[i] = w[i - 16] &+ s0 &+ w[i - 7] &+ s1
                    }
                    var (a, b, c, d) = (state[0], state[1], state[2], state[3])
                    var (e, f, g, h) = (state[4], state[5], state[6], state[7])
                    for i in 0..<64 {
                        let s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)
                        let t1 = h &+ s1 &+ ((e & f) ^ (~e & g)) &+ k[i] &+ w[i]
                        let s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)
                        let t2 = s0 &+ ((a & b) ^ (a & c) ^ (b & c))
                        (h, g, f, e, d, c, b, a) = (g, f, e, d &+ t1, c, b, a, t1 &+ t2)
                    }
                    for (i, x) in [a, b, c, d, e, f, g, h].enumerated() { state[i] = state[i] &+ x }
                }
            }
        }
    }

    private static func rotate(_ x: UInt32, _ count: UInt32) -> UInt32 { (x >> count) | (x << (32 - count)) }
}
#endif

func sha256(_ content: [UInt8]) -> String {
    var digest = Sha256()
    content.withUnsafeBytes { digest.update($0) }
    return digest.hex()
}

/// Of a whole file, lower-case hex. `progress`: bytes since its last call; it may throw. Throws IoError.
func sha256(_ file: URL, _ progress: (Int) throws -> Void = { _ in }) throws -> String {
    let (opened, size) = try openRegular(file)
    var digest = Sha256()
    let buffer = try Bytes(count: 1 << 20)
    var done = 0
    while done < size {
        let count = min(buffer.count, size - done)
        let piece = UnsafeMutableRawBufferPointer(start: buffer.pointer, count: count)
        try opened.read(at: done, into: piece)
        digest.update(UnsafeRawBufferPointer(piece))
        done += count
        try progress(count)
    }
    return digest.hex()
}
