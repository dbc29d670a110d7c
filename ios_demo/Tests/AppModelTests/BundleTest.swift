import Foundation
import LCSBKit
import XCTest
@testable import AppModel

/// Bundles: copied, broken off and gone on with, found where they were pushed, brought back and removed.
final class BundleTest: XCTestCase {
    /// A bundle beside the tiny one that is large enough to be caught while it is copied: a file that the manifest does not name is copied too.
    @MainActor private static func large(_ phone: Phone, megabytes: Int = 60) throws -> URL {
        let folder = phone.root.appendingPathComponent("pushed/llama")
        try FileManager.default.createDirectory(at: folder.deletingLastPathComponent(), withIntermediateDirectories: true)
        try FileManager.default.copyItem(at: testBundles.appendingPathComponent("llama"), to: folder)
        try Data(count: megabytes << 20).write(to: folder.appendingPathComponent("zz-more.bin"))
        return folder
    }

    func testTheTinyBundleIsUsedWhereItLiesInTheAppAndCanBeBroughtBack() async throws {
        try await onPhone { phone in
            let row = phone.app.model.rows[0]
            XCTAssertEqual(row.id, "tiny")
            XCTAssertTrue(row.chosen)
            XCTAssertEqual(row.figures.map(\.label), ["Size", "Layers", "Memory to train", "A training step"])
            XCTAssertEqual(row.figures[1].value, "8")
            XCTAssertTrue(row.figures[2].value.hasPrefix("about "))
            XCTAssertTrue(row.figures[3].value.hasPrefix("about ") && row.figures[3].value.hasSuffix(" s"))
            XCTAssertEqual(row.check, "Will be tested on this device before the first run")
            XCTAssertEqual(row.spoken, "Model tiny. \(row.source). \(row.check)")
            XCTAssertEqual(phone.names(phone.places.bundles), ["tiny.json"], "no copy")
            let roles = phone.state.bundle!.schedule
            XCTAssertEqual(roles[0], Array(repeating: .skipped, count: 6) + [.trained, .trained])
            XCTAssertEqual(roles[3], [.trained, .trained] + Array(repeating: .passed, count: 6))

            phone.app.model.remove("tiny")
            await phone.core.bundling.finish()
            XCTAssertTrue(phone.app.model.rows.isEmpty)
            XCTAssertTrue(FileManager.default.fileExists(atPath: phone.places.demo!.appendingPathComponent("tiny/manifest.json").path))
            XCTAssertEqual(phone.app.train.sentence, "Choose a model first.")
            try await phone.start()
            XCTAssertTrue(phone.app.model.rows.isEmpty, "who removed it does not get it again")
            XCTAssertTrue(phone.app.model.canAddDemo)
            phone.app.model.addDemo()
            try await phone.wait("tiny") { phone.state.chosen == "tiny" }
            XCTAssertFalse(phone.app.model.canAddDemo)
        }
    }

    func testAFolderIsCopiedAlsoTheOneFolderInIt() async throws {
        try await onPhone { phone in
            let outer = phone.root.appendingPathComponent("download")
            try FileManager.default.createDirectory(at: outer, withIntermediateDirectories: true)
            try FileManager.default.copyItem(at: testBundles.appendingPathComponent("llama"), to: outer.appendingPathComponent("llama-export"))
            try Data().write(to: outer.appendingPathComponent(".DS_Store"))
            phone.app.model.add(folder: outer)
            try await phone.wait("the bundle") { phone.state.chosen == "download" }
            try await phone.settle()
            XCTAssertEqual(phone.names(phone.places.bundles), ["download", "download.json", "tiny.json"])
            XCTAssertEqual(phone.names(phone.places.bundles.appendingPathComponent("download")), phone.names(testBundles.appendingPathComponent("llama")))
            try FileManager.default.removeItem(at: outer)
            phone.app.model.add(folder: testBundles.appendingPathComponent("llama"))
            try await phone.wait("a second copy") { phone.state.chosen == "llama" }
            try await phone.start()
            XCTAssertEqual(phone.app.model.rows.map(\.id), ["download", "llama", "tiny"])
            XCTAssertEqual(phone.state.chosen, "llama")
        }
    }

    func testACopyThatIsCancelledLeavesNothing() async throws {
        try await onPhone { phone in
            phone.app.model.add(folder: try Self.large(phone))
            try await phone.wait("the copy") { (phone.state.transfer?.done ?? 0) > 1_000_000 }
            XCTAssertEqual(phone.app.model.transfer?.title, "Copying llama")
            XCTAssertTrue(phone.app.model.transfer!.detail.contains(" MB of 63 MB"), phone.app.model.transfer!.detail)
            XCTAssertFalse(phone.app.model.canAdd)
            phone.app.model.cancel()
            try await phone.settle()
            XCTAssertNil(phone.state.transfer)
            XCTAssertNil(phone.state.problem)
            XCTAssertNil(phone.app.model.unfinished)
            XCTAssertEqual(phone.names(phone.places.bundles), ["tiny.json"])
            XCTAssertEqual(phone.state.chosen, "tiny")
        }
    }

    /// The copy of a process that was killed: what was copied is not read again.
    func testACopyThatWasBrokenOffGoesOnWhereItStopped() async throws {
        try await onPhone { phone in
            let folder = try Self.large(phone, megabytes: 1)
            let library = phone.core.library
            let stop = Stop()
            let copied = Locked(0)
            await phone.core.bundling.finish()
            XCTAssertThrowsError(try library.add(folder, bookmark: phone.files.remember(folder), stop: stop) { transfer in
                copied.with { $0 = transfer.done }
                if transfer.done > 600_000 { stop.ask() }
            }) { XCTAssertTrue($0 is CancellationError) }
            XCTAssertEqual(library.unfinished?.name, "llama")
            // That nothing of it is copied twice shows where the source no longer has it.
            let first = "adapter.safetensors"
            let size = fileSize(folder.appendingPathComponent(first))
            XCTAssertGreaterThan(copied.with { $0 }, size)
            let kept = try Data(contentsOf: folder.appendingPathComponent(first))
            try Data(count: kept.count).write(to: folder.appendingPathComponent(first))
            try await phone.start()
            try await phone.wait("llama") { phone.state.chosen == "llama" }
            try await phone.settle()
            XCTAssertNil(phone.state.problem)
            XCTAssertEqual(try Data(contentsOf: phone.places.bundles.appendingPathComponent("llama/\(first)")), kept)
            XCTAssertEqual(phone.names(phone.places.bundles), ["llama", "llama.json", "tiny.json"])
        }
    }

    func testACopyWhoseFolderIsOutOfReachIsOfferedAndCanBeDiscarded() async throws {
        try await onPhone { phone in
            let folder = try Self.large(phone, megabytes: 1)
            let stop = Stop()
            XCTAssertThrowsError(try phone.core.library.add(folder, bookmark: phone.files.remember(folder), stop: stop) { if $0.done > 0 { stop.ask() } })
            phone.files.lost.with { $0 = [folder.path] }
            try await phone.start()
            XCTAssertNil(phone.state.problem, "it went on by itself: nothing is said")
            XCTAssertEqual(phone.app.model.unfinished, "llama")
            phone.app.model.goOnImporting()
            try await phone.assertSaid("The app may no longer read this file or folder.", "Die App darf diese Datei oder diesen Ordner nicht mehr lesen.")
            XCTAssertEqual(phone.app.model.unfinished, "llama")
            phone.app.model.discardImport()
            try await phone.settle()
            XCTAssertNil(phone.app.model.unfinished)
            XCTAssertEqual(phone.names(phone.places.bundles), ["tiny.json"])
        }
    }

    func testAnotherFolderDoesNotGoOnWithTheCopyOfOne() async throws {
        try await onPhone { phone in
            let folder = try Self.large(phone, megabytes: 1)
            let stop = Stop()
            XCTAssertThrowsError(try phone.core.library.add(folder, bookmark: nil, stop: stop) { if $0.done > 0 { stop.ask() } })
            try await phone.add("qwen2")
            XCTAssertEqual(phone.names(phone.places.bundles.appendingPathComponent("qwen2")), phone.names(testBundles.appendingPathComponent("qwen2")))
        }
    }

    func testABundleThatWasPushedIsFoundAndUsedWhereItLies() async throws {
        try await onPhone { phone in
            let inbox = phone.places.documents.appendingPathComponent("Inbox")
            try FileManager.default.createDirectory(at: inbox, withIntermediateDirectories: true)
            XCTAssertEqual(phone.app.model.found, [])
            try FileManager.default.copyItem(at: testBundles.appendingPathComponent("llama"), to: inbox.appendingPathComponent("llama"))
            try FileManager.default.copyItem(at: testBundles.appendingPathComponent("qwen2"), to: phone.places.documents.appendingPathComponent("qwen2"))
            try FileManager.default.createDirectory(at: inbox.appendingPathComponent("photos"), withIntermediateDirectories: true)
            phone.app.cameToFront()
            XCTAssertEqual(phone.app.model.found.map(\.name), ["qwen2", "llama"])
            phone.app.model.add(found: phone.app.model.found[1])
            try await phone.wait("llama") { phone.state.chosen == "llama" }
            try await phone.settle()
            XCTAssertEqual(phone.names(phone.places.bundles), ["llama.json", "tiny.json"], "no copy")
            XCTAssertEqual(phone.app.model.found.map(\.name), ["qwen2"])
            try await phone.useSample()
            phone.begin(steps: 2)
            try await phone.waitForEnd()
            phone.app.model.remove("llama")
            await phone.core.bundling.finish()
            XCTAssertFalse(FileManager.default.fileExists(atPath: inbox.appendingPathComponent("llama").path), "its storage is given back")
            try FileManager.default.removeItem(at: phone.places.documents.appendingPathComponent("qwen2"))
            phone.app.cameToFront()
            XCTAssertEqual(phone.app.model.found, [])
        }
    }

    func testAPushedBundleThatIsGoneIsNotListedAnyMore() async throws {
        try await onPhone { phone in
            let place = phone.places.documents.appendingPathComponent("llama")
            try FileManager.default.copyItem(at: testBundles.appendingPathComponent("llama"), to: place)
            phone.app.cameToFront()
            phone.app.model.add(found: phone.app.model.found[0])
            try await phone.wait("llama") { phone.state.chosen == "llama" }
            try await phone.settle()
            try FileManager.default.removeItem(at: place)
            try await phone.start()
            XCTAssertEqual(phone.app.model.rows.map(\.id), ["tiny"])
            XCTAssertEqual(phone.state.chosen, "tiny")
        }
    }

    func testWhatAKilledProcessLeftGoesButForAnUnfinishedCopy() async throws {
        try await onPhone { phone in
            try await phone.add("llama")
            for left in ["qwen2", "llama-2"] {
                try FileManager.default.createDirectory(at: phone.places.bundles.appendingPathComponent(left), withIntermediateDirectories: true)
            }
            try Data("{".utf8).write(to: phone.places.bundles.appendingPathComponent("odd.json"))
            try await phone.start()
            XCTAssertEqual(phone.names(phone.places.bundles), ["llama", "llama.json", "odd.json", "tiny.json"])
            XCTAssertEqual(phone.app.model.rows.map(\.id), ["llama", "tiny"])
        }
    }

    func testAFileThatIsOpenedWithTheAppGoesWhereItBelongs() async throws {
        try await onPhone { phone in
            phone.app.open(testBundles.appendingPathComponent("llama"))
            XCTAssertEqual(phone.app.shown, .model)
            try await phone.wait("llama") { phone.state.chosen == "llama" }
            try await phone.settle()
            phone.app.open(testBundles.appendingPathComponent("llama/adapter.safetensors"))
            XCTAssertEqual(phone.app.shown, .share)
            try await phone.wait("the adapter") { phone.state.adapters.count == 1 }
            phone.app.open(try phone.file("letters.txt", "one\ntwo\n"))
            XCTAssertEqual(phone.app.shown, .data)
            try await phone.wait("the letters") { phone.state.data?.summary?.examples == 2 }
        }
    }
}
