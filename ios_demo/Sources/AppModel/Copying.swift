import Foundation
import LCSBKit

private let blockBytes = 1 << 18

/// Copies `source` to `target`, which is whole or not there. Throws STORAGE_FULL, STORAGE_FAILED.
func copy(_ source: URL, to target: URL) throws {
    try replaceAtomically(target) { opened in
        try eachBlock(source) { block, _ in try opened.write(block) }
    }
}

/// Reads `source` from `start` on. `use` is given each block and the bytes read so far. Throws IoError, and what `use` throws.
func eachBlock(_ source: URL, from start: Int = 0, _ use: (UnsafeRawBufferPointer, Int) throws -> Void) throws {
    let (opened, _) = try openRegular(source)
    var at = start
    while true {
        let block = try opened.read(at: at, upTo: blockBytes)
        if block.isEmpty { return }
        at += block.count
        try block.withUnsafeBytes { try use($0, at) }
    }
}

/// A source that fails is the source's fault, not the storage's: `fault` that names it. What `use` throws goes on.
func eachBlock(_ source: URL, from start: Int = 0, fault: Fault, _ use: (UnsafeRawBufferPointer, Int) throws -> Void) throws {
    struct Passed: Error { let error: any Error }
    do {
        try eachBlock(source, from: start) { block, done in
            do {
                try use(block, done)
            } catch {
                throw Passed(error: error)
            }
        }
    } catch let error as IoError {
        let name = source.lastPathComponent
        throw LcsbError(fault, "\(name): cannot be read: \(oneLine(error.reason))", [name])
    } catch let passed as Passed {
        throw passed.error
    }
}
