import Foundation
import XCTest
@testable import LCSBKit

/// Whatever a bundle's file holds, reading it succeeds or throws an error of ours: Swift would end the process where a number grows too
/// large, or a reader goes too far.
final class ChangedFilesTest: XCTestCase {
    private let rounds: UInt64 = 300

    /// The fuzzer's corpus for a reader, and more.
    private func corpus(_ reader: String, _ more: [[UInt8]]) throws -> [[UInt8]] {
        let directory = Repository.root.file("fuzz/corpus/\(reader)")
        let found = try listed(directory).map { try directory.file($0).content }
        XCTAssertFalse(found.isEmpty)
        return found + more
    }

    private func read(_ what: @autoclosure () -> String, _ faults: Set<Fault>, _ act: () throws -> Void) {
        do {
            try act()
        } catch let error as LcsbError {
            XCTAssert(faults.contains(error.fault) && printable(error.message.unicodeScalars) == error.message, "\(what()): \(error)")
        } catch {
            XCTFail("\(what()): \(error)")
        }
    }

    /// With some bytes changed, by `hash`, to such as text has or any.
    private func changed(_ content: [UInt8], text: Bool = false, _ hash: (UInt64) -> UInt64) -> [UInt8] {
        var changed = content
        for change in 0...hash(0) % 4 {
            let hash = hash(change + 1)
            changed[Int(hash % UInt64(content.count))] = UInt8(truncatingIfNeeded: hash >> 40) & (text ? 0x7F : 0xFF)
        }
        return changed
    }

    private let values = [
        "-1", "0", "1", "7", "2147483647", "2147483648", "-2147483648", "9007199254740992", "-9007199254740992", "9223372036854775807",
        "-9223372036854775808", "9223372036854775808", "1e308", "1e999", "0.5", "\"\"", "\"x\"", "\"block\"", "\"float32\"", "\"h\"",
        "\"layers.block.x\"", "\"\\u0000\"", "[]", "{}", "null", "true",
    ]

    /// With one value changed, left out, or put a second time, by `hash`.
    private func changed(_ json: Json, _ hash: (UInt64) -> UInt64, _ depth: UInt64 = 1) throws -> Json {
        let place = hash(depth)
        let isChanged = place >> 60 == 0
        switch json {
        case .object(var members) where !isChanged && !members.isEmpty:
            let index = Int(place % UInt64(members.count))
            let (key, value) = members.remove(at: index)
            if place >> 52 & 63 > 0 { members.insert((key, try changed(value, hash, depth + 1)), at: index) }
            return .object(members)
        case .array(var elements) where !isChanged && !elements.isEmpty:
            let index = Int(place % UInt64(elements.count))
            if place >> 52 & 15 == 0 { elements.remove(at: index) }
            if place >> 52 & 15 == 1 { elements.append(elements[index]) }
            if place >> 52 & 15 > 1 { elements[index] = try changed(elements[index], hash, depth + 1) }
            return .array(elements)
        default: return try Json(text: values[Int(place % UInt64(values.count))])
        }
    }

    private let unread: Set<Fault> = [.bundleUnreadable, .bundleNewerVersion, .bundleOlderVersion, .bundleOtherTarget, .bundleDamaged]

    func testManifests() throws {
        let own = try ["llama", "qwen3_5"].map { try openBundle($0).file(manifestFile).content }
        let malformed = "malformed manifest: "
        let stages = ["\(malformed)manifest.", "\(malformed)layers.", "\(malformed)weights:", "\(malformed)graphs.", "is missing"]
        var reached: Set<String> = []
        for (number, content) in try corpus("manifest", own).enumerated() {
            let json = try? Json(content: content)
            try inScratch { scratch in
                for round in 0..<rounds {
                    let hash = { splitmix64(UInt64(number) << 32 | round, $0) }
                    let spoiled = try round % 3 == 0 ? nil : json.map { Array(try changed($0, hash).text.utf8) }
                    unlink(scratch.file(manifestFile).path)
                    try scratch.file(manifestFile).write(spoiled ?? changed(content, text: true, hash))
                    read("manifest \(number), \(round)", unread) {
                        do {
                            _ = try TrainingBundle.open(scratch)
                        } catch let error as LcsbError {
                            reached.formUnion(stages.filter(error.message.contains))
                            throw error
                        }
                    }
                }
            }
        }
        XCTAssertEqual(reached, Set(stages))  // each met changed values
    }

    func testGoldenTraces() throws {
        let manifest = try openBundle("llama").manifest
        for (number, content) in try corpus("golden", [openBundle("llama").file(goldenFile).content]).enumerated() {
            let json = try Json(content: content)
            try inScratch { scratch in
                for round in 0..<rounds {
                    let hash = { splitmix64(UInt64(number) << 32 | round, $0) }
                    unlink(scratch.file(goldenFile).path)
                    let spoiled = round % 3 == 0 ? changed(content, text: true, hash) : Array(try changed(json, hash).text.utf8)
                    try scratch.file(goldenFile).write(spoiled)
                    read("golden \(number), \(round)", [.bundleUnreadable]) { _ = try GoldenTrace.open(scratch.file(goldenFile), manifest) }
                }
            }
        }
    }

    func testPrograms() throws {
        let own = try openBundle("llama").file("block_forward.onnx").content
        for (number, content) in try corpus("program", [own]).enumerated() {
            try inScratch { scratch in
                let file = scratch.file("program.onnx")
                for round in 0..<rounds {
                    unlink(file.path)
                    try file.write(changed(content) { splitmix64(UInt64(number) << 32 | round, $0) })
                    read("program \(number), \(round)", [.bundleUnreadable]) { try checkExternalData(file, weightsFile, 100, ["x"]) }
                }
            }
        }
    }

    func testAdapters() throws {
        let layout = try openBundle("llama").manifest.adapter
        let into = try Floats(count: layout.size)
        for (number, content) in try corpus("adapter", [openBundle("llama").file(adapterFile).content]).enumerated() {
            let header = min(content.count, 8 + Int(content[0]) + 256 * Int(content[1]))
            try inScratch { scratch in
                for round in 0..<rounds {
                    let start = changed(Array(content.prefix(header))) { splitmix64(UInt64(number) << 32 | round, $0) }
                    unlink(scratch.file(adapterFile).path)
                    try scratch.file(adapterFile).write(start + content.dropFirst(header))
                    read("adapter \(number), \(round)", [.adapter]) { try readAdapter(scratch.file(adapterFile), layout, into) }
                }
            }
        }
    }
}
