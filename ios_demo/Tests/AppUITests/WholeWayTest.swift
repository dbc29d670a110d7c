import SwiftUI
import XCTest
@testable import AppModel
@testable import AppUI

/// From a fresh app to a shared adapter by taps alone, with the tiny model on the real runtime.
final class WholeWayTest: XCTestCase, @unchecked Sendable {
    @MainActor func testATinyRun() async throws {
        let window = try Window(demo: true)
        defer { window.close() }
        window.main.begin()
        try await window.wait("the tiny model") { window.state.chosen != nil && window.state.transfer == nil }

        window.tap("Data", "Tab")
        window.tap("Use sample messages")
        try await window.wait("the sample") { window.state.data?.summary != nil && window.state.reading == nil }
        XCTAssertEqual(window.host.update().all.first { $0.label == "Examples" }?.value, "170")

        window.tap("Train", "Tab")
        window.set("Steps", to: 0.0)
        window.tap("Start")
        try await window.wait("a step") { window.state.run.step > 0 }
        XCTAssertTrue(window.isEnabled("Pause"))
        try await window.wait("the end") { window.state.run.phase == .finished && !window.main.core.training.running }
        let train = window.host.update()
        XCTAssertEqual(train.first("Chart")?.all("LineMark").filter { $0.styles["series"] == "Training" }.count, 8)
        XCTAssertTrue(train.texts.contains("Finished"))

        window.tap("Try it")
        XCTAssertEqual(window.main.shown, .tryIt)
        XCTAssertFalse(window.isEnabled("Send"))
        window.set("A message", to: "ok so")
        window.tap("Send")
        try await window.wait("an answer") { window.state.messages.map(\.complete) == [true, true] && !window.main.tryIt.writing }
        XCTAssertTrue(window.isThere("Begin anew"))
        window.set("How to try it", to: TryScreen.Mode.comparison)
        window.set("The same message for both", to: "ok so")
        window.tap("Write both")
        try await window.wait("both") { !window.state.comparison.writing && !window.state.comparison.right.isEmpty }

        window.tap("Share", "Tab")
        window.tap("Share adapter")
        try await window.wait("a packed adapter") { window.main.share.shared != nil }
        let link = try XCTUnwrap(window.host.update().first("Sheet")?.first("ShareLink"))
        let file = try XCTUnwrap(link.current as? URL)
        XCTAssertTrue(FileManager.default.fileExists(atPath: file.path))
        window.tap(in: "Sheet", "Close")
        XCTAssertNil(window.main.share.shared)

        window.tap("Rename")
        window.set("Name of the adapter", to: "Mine")
        window.tap(in: "Alert", "Rename")
        try await window.wait("its name") { window.state.adapters.first?.name == "Mine" }
        XCTAssertTrue(window.host.update().texts.contains("Mine"))
        window.tap("Delete")
        window.tap(in: "Dialog", "Delete")
        try await window.wait("its end") { window.state.adapters.isEmpty }
        XCTAssertFalse(window.isThere("Share adapter"))
        XCTAssertEqual(faults(window.host.root), [])
    }

    @MainActor func testOnesOwnMessages() async throws {
        let window = try Window()
        defer { window.close() }
        _ = window.show(.data)
        window.set("A message, as you would write it", to: "  hello there ")
        window.tap("Add")
        try await window.wait("a message") { window.state.data?.typed == ["hello there"] && window.state.reading == nil }
        window.host.update().first("PasteButton")?.change?(["pasted"])
        try await window.wait("another") { window.state.data?.typed == ["hello there", "pasted"] && window.state.reading == nil }
        XCTAssertTrue(window.host.update().texts.contains("pasted"))
        window.tap("Remove message: hello there")
        try await window.wait("one") { window.state.data?.typed == ["pasted"] && window.state.reading == nil }
    }
}
