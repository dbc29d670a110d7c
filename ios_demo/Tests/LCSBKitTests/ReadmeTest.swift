import Foundation
import XCTest

/// What the README shows does what it says.
final class ReadmeTest: XCTestCase {
    func testTheLoopInAnAppOfOnesOwn() async throws {
        let scratch = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: scratch) }
        let messages = scratch.appendingPathComponent("messages.jsonl")
        try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
        try Data((1...20).map { "{\"text\": \"message \($0)\"}\n" }.joined().utf8).write(to: messages)
        let peft = scratch.appendingPathComponent("peft")
        try await fineTune(
            TestBundles.directory.appendingPathComponent("llama"), on: messages, in: scratch.appendingPathComponent("run"), peft: peft)
        let written = try FileManager.default.contentsOfDirectory(atPath: peft.path)
        XCTAssertTrue(Set(written).isSuperset(of: ["adapter_config.json", "adapter_model.safetensors"]), "\(written)")
    }
}
