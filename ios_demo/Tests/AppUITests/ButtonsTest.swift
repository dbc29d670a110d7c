import Accessibility
import SwiftUI
import UniformTypeIdentifiers
import XCTest
@testable import AppModel
@testable import AppUI

/// Buttons, found by what they are called, do what they say; what cannot be undone is asked for.
final class ButtonsTest: XCTestCase, @unchecked Sendable {
    @MainActor private func window(_ test: (Window) async throws -> Void) async throws {
        let window = try Window()
        defer { window.close() }
        (window.state.bundles, window.state.chosen) = ([bundle("one"), bundle("two", checked: false)], "one")
        window.state.data = DataInfo(file: "f", name: "messages.jsonl", typed: nil, summary: summary)
        window.state.adapters = [adapter("a", "Messages"), adapter("b", "Messages 2")]
        try await test(window)
    }

    @MainActor func testTheSectionsAreAndroidsInAndroidsOrder() async throws {
        try await window { window in
            let tabs = window.host.update().all("Tab")
            XCTAssertEqual(tabs.map(\.spoken), ["Model", "Data", "Train", "Try it", "Share"])
            for (tab, destination) in zip(tabs.map(\.spoken), Destination.allCases) {
                window.tap(tab, "Tab")
                XCTAssertEqual(window.main.shown, destination)
                XCTAssertEqual(window.host.root.first("Title")?.text, tab)
                XCTAssertEqual(window.host.root.all("Tab").filter { $0.traits.contains("isSelected") }.map(\.spoken), [tab])
            }
        }
    }

    // Model

    @MainActor func testATapOnABundleChoosesIt() async throws {
        try await window { window in
            let spoken = { (name: String) in window.main.model.rows.first { $0.id == name }!.spoken }
            XCTAssertTrue(window.show(.model).first("Button", spoken("one"))!.traits.contains("isSelected"))
            window.tap(spoken("two"))
            XCTAssertEqual(window.state.chosen, "two")
            window.state.run.phase = .training
            XCTAssertFalse(window.isEnabled(spoken("one")))
        }
    }

    @MainActor func testRemovingABundleIsAskedFor() async throws {
        try await window { window in
            _ = window.show(.model)
            window.tap("Remove model two")
            XCTAssertEqual(window.host.root.first("Dialog")?.text, "Remove two?")
            window.tap(in: "Dialog", "Cancel")
            XCTAssertNil(window.host.root.first("Dialog"))
            XCTAssertEqual(window.state.bundles.count, 2)
            window.state.run.phase = .training
            XCTAssertFalse(window.isEnabled("Remove model one"))
        }
    }

    @MainActor func testAFolderIsPicked() async throws {
        try await window { window in
            _ = window.show(.model)
            window.tap("Add from folder")
            XCTAssertEqual(window.host.root.first("FileImporter")?.current as? [UTType], [.folder])
            window.pick(testBundles.appendingPathComponent("llama"))
            try await window.wait("the bundle") { window.state.chosen == "llama" && window.state.transfer == nil }
            XCTAssertEqual(window.host.update().first("Button", window.main.model.rows.first { $0.id == "llama" }!.spoken)?.isEnabled, true)
        }
    }

    @MainActor func testWhileOneIsCopiedNoOtherIs() async throws {
        try await window { window in
            window.state.found = [FoundBundle(directory: "pushed")]
            XCTAssertTrue(window.isEnabled("Add pushed"))
            window.state.transfer = Transfer(.copying, "one", done: 1, total: 2)
            XCTAssertFalse(window.isEnabled("Add pushed"))
            XCTAssertFalse(window.isEnabled("Add from folder"))
            XCTAssertEqual(window.host.root.first("ProgressView", "Copying one")?.current as? Double, 0.5)
            XCTAssertTrue(window.isEnabled("Cancel"))
        }
    }

    // Data

    @MainActor func testOnesOwnMessagesAreReplacedOnlyWhenAskedFor() async throws {
        try await window { window in
            window.state.data?.typed = ["a", "b"]
            _ = window.show(.data)
            window.tap("Import a file")
            XCTAssertNil(window.host.root.first("FileImporter"))
            XCTAssertEqual(window.host.root.first("Dialog")?.text, "Replace your messages?")
            XCTAssertTrue(window.host.root.texts.contains("2 messages that you wrote here will be deleted."))
            window.tap(in: "Dialog", "Cancel")
            XCTAssertNil(window.host.root.first("FileImporter"))
            window.tap("Import a file")
            window.tap(in: "Dialog", "Replace")
            XCTAssertNotNil(window.host.root.first("FileImporter"))
            window.host.root.first("FileImporter")?.picked?(.failure(CancellationError()))
            XCTAssertNil(window.host.update().first("FileImporter"))

            window.state.data?.typed = nil
            window.tap("Import a file")
            XCTAssertNotNil(window.host.root.first("FileImporter"))
        }
    }

    @MainActor func testAFileFromAnotherAppIsAskedFor() async throws {
        try await window { window in
            window.state.data?.typed = ["a"]
            let file = window.root.appendingPathComponent("x.txt")
            try Data("one\n\ntwo".utf8).write(to: file)
            window.host.root.all.compactMap(\.openURL).first?(file)
            XCTAssertEqual(window.host.update().first("Dialog")?.text, "Replace your messages?")
            XCTAssertEqual(window.main.shown, .data)
            window.tap(in: "Dialog", "Cancel")
            XCTAssertNil(window.main.data.offered)
        }
    }

    @MainActor func testTheExamplesAreTurnedOver() async throws {
        try await window { window in
            _ = window.show(.data)
            XCTAssertTrue(window.host.root.texts.contains("Hello there"))
            XCTAssertFalse(window.isEnabled("Previous example"))
            window.tap("Next example")
            XCTAssertTrue(window.host.root.texts.contains("Another"))
            XCTAssertFalse(window.isEnabled("Next example"))
            window.tap("Previous example")
            let spoken = window.host.root.all.compactMap(\.label).first { $0.hasPrefix("Example 1 of 2") }
            XCTAssertEqual(spoken, "Example 1 of 2. Learned:  there")
        }
    }

    @MainActor func testWhatIsLearnedStandsOutNotByColourAlone() async {
        let written = PreviewSection.written([TextPiece(text: "read", counted: false), TextPiece(text: "learned", counted: true)])
        let runs = written.runs.map { (String(written[$0.range].characters), $0.font, $0.backgroundColor) }
        XCTAssertEqual(runs.map(\.0), ["read", "learned"])
        XCTAssertNotEqual(runs[0].1, runs[1].1)
        XCTAssertNil(runs[0].2)
        XCTAssertNotNil(runs[1].2)
    }

    @MainActor func testDeletingTheDataIsAskedFor() async throws {
        try await window { window in
            _ = window.show(.data)
            window.tap("Delete data")
            XCTAssertTrue(window.host.root.texts.contains(window.main.data.deleteQuestion))
            window.tap(in: "Dialog", "Cancel")
            XCTAssertNotNil(window.state.data)
            window.tap("Delete data")
            window.tap(in: "Dialog", "Delete")
            try await window.wait("end") { window.state.data == nil }
        }
    }

    // Train

    @MainActor func testWhatCanBeDoneWithARun() async throws {
        let expected: [(RunPhase, [String])] = [
            (.none, ["Start", "Start at night"]), (.scheduled, ["Start now", "Stop"]), (.training, ["Pause", "Stop"]),
            (.paused, ["Resume", "Start at night", "Stop"]), (.finished, ["Train again", "Start at night", "Try it"]),
        ]
        try await window { window in
            window.state.voice = .adapter("a")
            for (phase, buttons) in expected {
                window.state.run = runState(phase)
                let offered = window.show(.train).all("Button").map(\.spoken)
                XCTAssertEqual(offered.filter { $0 != "Details" }, buttons, "\(phase)")
            }
            window.state.run = runState(.pausing)
            XCTAssertFalse(window.isEnabled("Pause"))
            XCTAssertFalse(window.isEnabled("Stop"))
        }
    }

    @MainActor func testStoppingARunIsAskedFor() async throws {
        try await window { window in
            window.state.run = runState(.paused)
            _ = window.show(.train)
            window.tap("Stop")
            XCTAssertEqual(window.host.root.first("Dialog")?.text, "Stop this run?")
            window.tap(in: "Dialog", "Go on")
            XCTAssertEqual(window.state.run.phase, .paused)
        }
    }

    @MainActor func testTheOptionsAreKept() async throws {
        try await window { window in
            _ = window.show(.train)
            window.set("Steps", to: 2.0)
            XCTAssertEqual(window.main.train.stepsLabel, "40 steps · about 1 minute")
            XCTAssertEqual(window.host.root.first("Slider")?.value, window.main.train.stepsLabel)
            window.set("Memory that training may take", to: Int?.some(512_000_000))
            XCTAssertEqual(window.main.train.budget, 512_000_000)
            window.set("Begin with", to: String?.some("b"))
            XCTAssertEqual(window.main.train.beginning, "b")
            let before = window.main.train.trainsAtNight
            window.tap("Go on at night", "Toggle")
            XCTAssertNotEqual(window.main.train.trainsAtNight, before)
            window.state.run = runState(.paused)
            XCTAssertFalse(window.isEnabled("Steps", "Slider"))
        }
    }

    // Share

    @MainActor func testWhatCanBeDoneWithAnAdapter() async throws {
        try await window { window in
            _ = window.show(.share)
            let menu = window.host.root.first("Menu", "What to do with “Messages”")
            XCTAssertEqual(menu?.all("Button").map(\.spoken), [
                "Share adapter", "Try it", "The model as it came", "Messages 2", "Continue training", "Rename", "Delete",
            ])
            window.tap("Continue training", number: 1)
            XCTAssertEqual(window.main.shown, .train)
            XCTAssertEqual(window.main.train.beginning, "b")

            window.state.run = runState(.paused)
            _ = window.show(.share)
            XCTAssertFalse(window.isEnabled("Continue training"))
            window.tap("Messages 2")
            XCTAssertEqual(window.main.shown, .tryIt)
            XCTAssertEqual(window.main.tryIt.title(of: window.main.tryIt.left), "Messages 2")
            XCTAssertEqual(window.main.tryIt.title(of: window.main.tryIt.right), "Messages")
        }
    }

    @MainActor func testDeletingAnAdapterIsAskedFor() async throws {
        try await window { window in
            _ = window.show(.share)
            window.tap("Delete", number: 1)
            XCTAssertEqual(window.host.root.first("Dialog")?.text, "Delete “Messages 2”?")
            window.tap(in: "Dialog", "Cancel")
            XCTAssertEqual(window.state.adapters.count, 2)
        }
    }

    // What went wrong

    @MainActor func testAProblemIsSaidAtOnceAndItsDetailsWhenAskedFor() async throws {
        try await window { window in
            _ = window.show(.share)
            AccessibilityNotification.Announcement.posted = []
            window.state.problem = Problem(.bundleDamaged, [], detail: "weights.bin: sha256 differs")
            window.host.update()
            XCTAssertEqual(AccessibilityNotification.Announcement.posted, ["A file of the model is damaged."])
            XCTAssertFalse(window.host.root.texts.contains("weights.bin: sha256 differs"))
            window.tap("Details")
            XCTAssertTrue(window.host.root.texts.contains("weights.bin: sha256 differs"))
            XCTAssertFalse(window.isThere("Details"))
            window.tap("Close")
            XCTAssertNil(window.state.problem)
        }
    }

    @MainActor func testAProblemOfTheSettingsLeadsThere() async throws {
        try await window { window in
            window.state.problem = .notifications
            window.tap("Settings")
            XCTAssertEqual(window.opened.map(\.absoluteString), ["app-settings:"])
        }
    }

    @MainActor func testLeavingAndComingBackIsTold() async throws {
        try await window { window in
            window.host.environment.scenePhase = .inactive  // a notice lies over it
            window.host.update()
            XCTAssertTrue(window.main.core.inFront)
            window.host.environment.scenePhase = .background
            window.host.update()
            XCTAssertFalse(window.main.core.inFront)
            window.host.environment.scenePhase = .inactive
            window.host.update()
            XCTAssertFalse(window.main.core.inFront)
            window.host.environment.scenePhase = .active
            window.host.update()
            XCTAssertTrue(window.main.core.inFront)
        }
    }
}
