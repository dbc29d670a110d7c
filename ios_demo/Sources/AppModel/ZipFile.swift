import Foundation
import LCSBKit

/// Writes the files of `directory` as a ZIP file of one folder of its name, stored as they are: an adapter's numbers do not shrink. Throws
/// STORAGE_FULL, STORAGE_FAILED.
func writeZip(_ directory: URL, to file: URL) throws {
    try replaceAtomically(file) { opened in
        var (central, offset, count) = ([UInt8](), 0, 0)
        func write(_ bytes: [UInt8]) throws {
            try bytes.withUnsafeBytes { try opened.write($0) }
            offset += bytes.count
        }
        for name in listed(directory) {
            let source = directory.appendingPathComponent(name)
            let path = Array("\(directory.lastPathComponent)/\(name)".utf8)
            var (sum, size) = (Crc32(), 0)
            try eachBlock(source) { block, _ in
                sum.update(block)
                size += block.count
            }
            let entry = Header(path: path, sum: sum.value, size: size, offset: offset)
            try write(entry.local)
            try eachBlock(source) { block, _ in try opened.write(block) }
            offset += size
            central += entry.central
            count += 1
        }
        let start = offset
        try write(central)
        try write(Header.end(count: count, size: central.count, offset: start))
    }
}

/// An entry, without the extensions for files from 4 GB on: adapters are smaller.
private struct Header {
    let path: [UInt8]
    let sum: UInt32
    let size: Int
    let offset: Int

    /// Version 2.0, names in UTF-8, stored, 1 January 1980.
    private var common: [UInt8] {
        short(20) + short(0x0800) + short(0) + short(0) + short(0x21) + long(Int(sum)) + long(size) + long(size) + short(path.count) + short(0)
    }

    var local: [UInt8] { long(0x0403_4B50) + common + path }

    var central: [UInt8] {
        long(0x0201_4B50) + short(20) + common + short(0) + short(0) + short(0) + long(0) + long(offset) + path
    }

    static func end(count: Int, size: Int, offset: Int) -> [UInt8] {
        long(0x0605_4B50) + short(0) + short(0) + short(count) + short(count) + long(size) + long(offset) + short(0)
    }
}

private func short(_ value: Int) -> [UInt8] { [UInt8(value & 0xFF), UInt8(value >> 8 & 0xFF)] }
private func long(_ value: Int) -> [UInt8] { short(value & 0xFFFF) + short(value >> 16 & 0xFFFF) }

/// The sum that ZIP holds its entries to.
struct Crc32 {
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 0 ? value >> 1 : value >> 1 ^ 0xEDB8_8320 }
    }

    private var state: UInt32 = 0xFFFF_FFFF

    var value: UInt32 { state ^ 0xFFFF_FFFF }

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes { state = Self.table[Int((state ^ UInt32(byte)) & 0xFF)] ^ state >> 8 }
    }
}
