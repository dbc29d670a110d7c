import Foundation
@testable import LCSBKit
import XCTest
@testable import AppModel

/// What goes wrong is said in a sentence that a person understands, in both languages; and what was there is still there.
final class BadInputTest: XCTestCase {
    /// The tiny bundle with its manifest or another file changed.
    @MainActor private static func changed(_ phone: Phone, _ change: (URL) throws -> Void) throws -> URL {
        let directory = phone.root.appendingPathComponent("changed-\(UUID().uuidString)/smollm")
        try FileManager.default.createDirectory(at: directory.deletingLastPathComponent(), withIntermediateDirectories: true)
        try FileManager.default.copyItem(at: testBundles.appendingPathComponent("tiny"), to: directory)
        try change(directory)
        return directory
    }

    @MainActor private static func manifest(_ directory: URL, _ change: (inout [String: Any]) throws -> Void) throws {
        let file = directory.appendingPathComponent("manifest.json")
        var fields = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as! [String: Any]
        try change(&fields)
        fields["digest"] = nil  // as of before a manifest had one
        try JSONSerialization.data(withJSONObject: fields, options: .withoutEscapingSlashes).write(to: file)
    }

    /// Whoever changes a file can state its new digest.
    @MainActor private static func restate(_ directory: URL, _ name: String) throws {
        let bytes = [UInt8](try Data(contentsOf: directory.appendingPathComponent(name)))
        var digest = Sha256()
        bytes.withUnsafeBytes { digest.update($0) }
        try manifest(directory) { fields in
            var files = fields["files"] as! [String: Any]
            files[name] = ["size": bytes.count, "sha256": digest.hex()]
            fields["files"] = files
            fields["identity"] = nil
        }
    }

    @MainActor private static func refuse(
        _ english: String, _ german: String, _ fault: Fault, file: StaticString = #filePath, line: UInt = #line,
        _ change: @MainActor (URL) throws -> Void
    ) async throws {
        try await onPhone { phone in
            phone.app.model.add(folder: try Self.changed(phone, change))
            try await phone.assertSaid(english, german, fault, file: file, line: line)
            XCTAssertEqual(phone.state.bundles.map(\.name), ["tiny"], file: file, line: line)
            XCTAssertEqual(phone.names(phone.places.bundles), ["tiny.json"], "what was copied is gone", file: file, line: line)
            XCTAssertNil(phone.app.model.unfinished, file: file, line: line)
        }
    }

    func testABundleOfAnotherTarget() async throws {
        try await Self.refuse(
            "This model was exported for something else than this app.", "Dieses Modell wurde nicht für diese App exportiert.",
            .bundleOtherTarget
        ) { try Self.manifest($0) { $0["target"] = "onnxruntime-training" } }
    }

    /// The model is kept, and says so: another system may compute it rightly.
    func testARuntimeThatComputesSomethingElse() async throws {
        try await onPhone { phone in
            let directory = try Self.changed(phone) { directory in
                let file = directory.appendingPathComponent("golden.json")
                var trace = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as! [String: Any]
                trace["run"] = (trace["run"] as! [[String: Any]]).map { step in step.merging(["loss": (step["loss"] as! Double) * 1.5]) { $1 } }
                try JSONSerialization.data(withJSONObject: trace).write(to: file)
                try Self.restate(directory, "golden.json")
            }
            phone.app.model.add(folder: directory)
            try await phone.wait("the bundle") { phone.state.chosen == "smollm" && phone.state.transfer == nil }
            try await phone.settle()
            try await phone.useSample()
            for _ in 0..<2 {  // it is tested again, and again not used
                phone.begin(steps: 2)
                try await phone.waitForEnd(.failed)
                try await phone.assertSaid(
                    "The model computes wrong results on this device, so it was not trained.",
                    "Das Modell rechnet auf diesem Gerät falsch und wurde deshalb nicht trainiert.", .goldenTrace)
                let bundle = phone.state.bundle!
                XCTAssertFalse(bundle.checked)
                XCTAssertEqual(bundle.verdict, Verdict(runtime: "onnxruntime", version: bundle.verdict!.version, holds: false))
            }
            let check = phone.app.model.rows.first { $0.id == "smollm" }!.check
            XCTAssertEqual(check, "Computes wrong results on this device with ONNX Runtime and is not trained here")
            try await phone.start()
            XCTAssertEqual(phone.app.model.rows.first { $0.id == "smollm" }!.check, check, "it was kept")
        }
    }

    func testABundleOfANewerVersion() async throws {
        try await Self.refuse(
            "This model needs a newer version of the app.", "Dieses Modell braucht eine neuere Version der App.", .bundleNewerVersion
        ) { try Self.manifest($0) { $0["format_version"] = 99 } }
    }

    func testABundleOfAnOlderVersion() async throws {
        try await Self.refuse(
            "This model was exported by an older version of “lcsb export” than the app reads.",
            "Dieses Modell wurde mit einer älteren Version von „lcsb export“ erzeugt, als die App sie liest.", .bundleOlderVersion
        ) { try Self.manifest($0) { $0["format_version"] = 1 } }
    }

    func testAChangedByte() async throws {
        try await Self.refuse("A file of the model is damaged.", "Eine Datei des Modells ist beschädigt.", .bundleDamaged) { directory in
            let file = directory.appendingPathComponent("weights.bin")
            var bytes = [UInt8](try Data(contentsOf: file))
            bytes[100_000] ^= 1
            try Data(bytes).write(to: file)
        }
    }

    func testAFolderThatIsNoBundle() async throws {
        try await Self.refuse("The model could not be read.", "Das Modell war nicht lesbar.", .bundleUnreadable) { directory in
            try FileManager.default.removeItem(at: directory)
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        }
    }

    func testAFolderThatIsGone() async throws {
        try await Self.refuse("The model could not be read.", "Das Modell war nicht lesbar.", .bundleUnreadable) {
            try FileManager.default.removeItem(at: $0)
        }
    }

    func testATokenizerOfAKindThatTheAppLacks() async throws {
        try await Self.refuse(
            "This model splits text in a way that the app does not know.",
            "Dieses Modell zerlegt Text auf eine Art, die die App nicht kennt.", .tokenizerUnsupported
        ) { directory in
            let file = directory.appendingPathComponent("tokenizer.json")
            let text = try String(contentsOf: file, encoding: .utf8)
            let other = text.replacingOccurrences(of: "\"type\":\"BPE\"", with: "\"type\":\"WordPiece\"")
                .replacingOccurrences(of: "\"type\": \"BPE\"", with: "\"type\": \"WordPiece\"")
            XCTAssertNotEqual(text, other)
            try other.write(to: file, atomically: true, encoding: .utf8)
            try Self.restate(directory, "tokenizer.json")
        }
    }

    func testAFolderThatTheAppMayNotRead() async throws {
        try await onPhone { phone in
            let folder = testBundles.appendingPathComponent("llama")
            phone.files.lost.with { $0 = [folder.path] }
            phone.app.model.add(folder: folder)
            try await phone.assertLost()
        }
    }

    func testTooLittleStorageForABundle() async throws {
        try await onPhone { phone in
            let folder = phone.root.appendingPathComponent("large")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try Data("{}".utf8).write(to: folder.appendingPathComponent("manifest.json"))
            let weights = folder.appendingPathComponent("weights.bin")
            _ = FileManager.default.createFile(atPath: weights.path, contents: nil)
            XCTAssertEqual(truncate(weights.path, 8 << 40), 0, "a file of 8 TB that takes no room")
            phone.app.model.add(folder: folder)
            try await phone.wait("the refusal") { phone.state.problem != nil }
            XCTAssertEqual(phone.state.problem?.fault, .storageFull)
            let said = phone.state.problem!.what(phone.german)
            XCTAssertTrue(said.hasPrefix("Dafür sind 8.796,1 GB Speicherplatz nötig, und "), said)
            XCTAssertTrue(phone.state.problem!.what(phone.english).hasPrefix("This needs 8,796.1 GB of storage, and "))
        }
    }

    // Data

    @MainActor private static func refuseData(
        _ english: String, _ german: String, _ fault: Fault, _ contents: [[UInt8]], file: StaticString = #filePath, line: UInt = #line
    ) async throws {
        try await onPhone { phone in
            try await phone.useSample()
            for bytes in contents {
                phone.app.data.add(file: try phone.file("letters.txt", bytes))
                try await phone.assertSaid(english, german, fault, file: file, line: line)
                XCTAssertEqual(phone.app.data.title, "Sample messages", "what was there stays", file: file, line: line)
                XCTAssertEqual(phone.names(phone.places.data).filter { $0.hasSuffix(".jsonl") }.count, 1, file: file, line: line)
            }
        }
    }

    func testATextInAWrongEncoding() async throws {
        let latin = Array("Grüße".unicodeScalars.map { UInt8($0.value) })
        try await Self.refuseData(
            "The file is not text in UTF-8.", "Die Datei ist kein Text in UTF-8.", .dataEncoding,
            [latin, Array("{\"text\": \"".utf8) + latin + Array("\"}\n".utf8), [0xFF, 0xFE, 0x61, 0x00]])
    }

    func testAnEmptyFileAndOneWithNothingToLearnFrom() async throws {
        let prompt = "so long that nothing of the completion is left over, for the model reads thirty-two tokens at once and this has more"
        let long = "{\"prompt\": \"\(prompt)\", \"completion\": \"x\"}"
        try await Self.refuseData(
            "There is nothing in this data to learn from.", "In diesen Daten ist nichts, woraus gelernt werden kann.", .dataEmpty,
            [[], Array("\n \n".utf8), Array(long.utf8)])
    }

    func testAMalformedLineIsNamedByItsNumber() async throws {
        try await Self.refuseData(
            "Line 2 of the file is not an example that can be learned from.",
            "Zeile 2 der Datei ist kein Beispiel, aus dem gelernt werden kann.", .dataLine,
            [Array("{\"text\": \"a\"}\n{\"txt\": \"b\"}\n".utf8), Array("{\"text\": \"a\"}\n{\"text\": \"b\n".utf8)])
    }

    func testADocumentThatCannotBeRead() async throws {
        try await onPhone { phone in
            phone.app.data.add(file: URL(fileURLWithPath: "/nowhere/gone.txt"))
            try await phone.assertSaid("The file could not be read.", "Die Datei war nicht lesbar.", .dataUnreadable)
            let file = try phone.file("revoked.txt", "a")
            phone.files.lost.with { $0 = [file.path] }
            phone.app.data.add(file: file)
            try await phone.assertLost()
            XCTAssertNil(phone.state.data)
        }
    }

    func testMoreMessagesThanThereIsRoomFor() async throws {
        try await onPhone { phone in
            phone.app.receive(text: String(repeating: "a ", count: 9 << 20))
            try await phone.assertSaid("There is no room here for more messages.", "Für weitere Nachrichten ist hier kein Platz.")
        }
    }

    // Adapters

    func testAnAdapterOfAnotherModelOrNone() async throws {
        try await onPhone { phone in
            let english = "The adapter does not fit this model, or is damaged."
            let german = "Der Adapter passt nicht zu diesem Modell oder ist beschädigt."
            let llama = testBundles.appendingPathComponent("llama/adapter.safetensors")
            var cut = [UInt8](try Data(contentsOf: testBundles.appendingPathComponent("tiny/adapter.safetensors")))
            cut.removeLast(100)
            let empty = phone.root.appendingPathComponent("no-adapter")
            try FileManager.default.createDirectory(at: empty, withIntermediateDirectories: true)
            let gone = phone.root.appendingPathComponent("gone")
            for source in [llama, try phone.file("cut.safetensors", cut), try phone.file("notes.txt", "hello"), empty, gone] {
                phone.app.share.add(source)
                try await phone.assertSaid(english, german, .adapter)
                XCTAssertEqual(phone.names(phone.places.adapters), [])
            }
        }
    }

    func testAMessageThatIsTooLong() async throws {
        try await onPhone { phone in
            phone.app.tryIt.draft = String(repeating: "many words ", count: 100)
            phone.app.tryIt.send()
            try await phone.assertSaid("The message is too long for this model.", "Die Nachricht ist zu lang für dieses Modell.", nil)
            XCTAssertEqual(phone.app.tryIt.messages.map(\.mine), [true], "the question stays, to be shortened")
        }
    }
}
