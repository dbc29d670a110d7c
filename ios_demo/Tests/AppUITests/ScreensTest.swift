import SwiftUI
import XCTest
@testable import AppModel
@testable import AppUI

/// Every screen in every state, in both languages: it can be built, everything on it has a name, and no key stands for its sentence.
final class ScreensTest: XCTestCase, @unchecked Sendable {
    @MainActor private func inBothLanguages(_ destination: Destination, _ states: [Case]) throws {
        for language in ["en", "de"] {
            for each in states {
                let name = each.name
                let window = try Window(language)
                defer { window.close() }
                each.change(window)
                let root = window.show(destination)
                XCTAssertEqual(root.first("Title")?.text, window.words(destination.title), "\(name), \(language)")
                XCTAssertEqual(faults(root), [], "\(name), \(language)\n\(root.outline)")
                open(window)
                XCTAssertEqual(faults(window.host.root), [], "\(name), \(language), unfolded\n\(window.host.root.outline)")
            }
        }
    }

    /// What is folded away.
    @MainActor private func open(_ window: Window) {
        for node in window.host.root.all("Disclosure") { node.action?() }
        window.host.update()
    }

    @MainActor private static func ready(_ window: Window) {
        (window.state.bundles, window.state.chosen) = ([bundle("one"), bundle("two", checked: false)], "one")
        window.state.data = DataInfo(file: "f", name: "messages.jsonl", typed: nil, summary: summary)
    }

    @MainActor private static func learned(_ window: Window) {
        ready(window)
        (window.state.adapters, window.state.voice) = ([adapter("a", "Messages"), adapter("b", "Messages 2")], .adapter("a"))
    }

    @MainActor func testModel() async throws {
        try inBothLanguages(.model, [
            Case("none", { _ in }),
            Case("two", { Self.ready($0) }),
            Case("judged", { window in
                Self.ready(window)
                window.state.bundles += [true, false].map { holds in
                    bundle("judged \(holds)", checked: holds, verdict: Verdict(runtime: "coreai", version: "27.0", holds: holds))
                }
            }),
            Case("copying", { $0.state.transfer = Transfer(.copying, "one", done: 3_000_000, total: 9_000_000) }),
            Case("verifying", { $0.state.transfer = Transfer(.verifying, "one") }),
            Case("broken off", { $0.state.unfinishedImport = "one" }),
            Case("found", { $0.state.found = [FoundBundle(directory: "pushed"), FoundBundle(directory: "Inbox/other")] }),
            Case("training", { window in
                Self.ready(window)
                window.state.run.phase = .training
            }),
        ])
    }

    @MainActor func testData() async throws {
        let typed = (1...40).map { "message \($0)" }
        try inBothLanguages(.data, [
            Case("none", { _ in }),
            Case("a file", { Self.ready($0) }),
            Case("without a model", { $0.state.data = DataInfo(file: "f", name: "x.txt", typed: nil, summary: nil) }),
            Case("written", { window in
                Self.ready(window)
                window.state.data = DataInfo(file: "f", name: "", typed: typed, summary: summary)
            }),
            Case("reading", { window in
                Self.ready(window)
                window.state.reading = Transfer(.reading, "x.txt", done: 2_000_000, total: 5_000_000)
            }),
        ])
    }

    @MainActor func testTrain() async throws {
        var states: [Case] = [Case("nothing") { _ in }, Case("ready", { Self.ready($0) })]
        let saying: Set<RunPhase> = [.training, .waiting, .interrupted]  // the reason; of the others none is said
        for phase in RunPhase.allCases {
            for reason in [nil] + (saying.contains(phase) ? WaitReason.allCases : []).map(Optional.some) {
                states.append(Case("\(phase) \(reason.map { "\($0)" } ?? "")") { window in
                    Self.ready(window)
                    window.state.run = runState(
                        phase, training: (1...40).map { LossPoint($0, 4 - Double($0) / 20) },
                        evaluation: [LossPoint(0, 4.1), LossPoint(40, 2.2)], roles: [.trained, .passed, .skipped, .trained], layer: 3,
                        decision: Decision(waits: reason != nil && phase != .training, reason: reason))
                    (window.state.vitals.memory, window.state.vitals.peakMemory) = (150_000_000, 160_000_000)
                    window.state.adapters = [adapter("a", "Messages"), adapter("b", "Messages 2")]
                })
            }
        }
        try inBothLanguages(.train, states)
    }

    @MainActor func testTry() async throws {
        let messages = [
            ChatMessage(id: 1, voice: nil, text: "Hello"), ChatMessage(id: 2, voice: .adapter("a"), text: "Hi", cut: true),
            ChatMessage(id: 3, voice: .adapter("gone"), text: "Hi", complete: false),
        ]
        try inBothLanguages(.tryIt, [
            Case("no model", { _ in }),
            Case("untrained", { Self.ready($0) }),
            Case("learned", { Self.learned($0) }),
            Case("paused", { window in
                Self.learned(window)
                (window.state.run.phase, window.state.voice) = (.paused, .run)
            }),
            Case("training", { window in
                Self.learned(window)
                window.state.run.phase = .training
            }),
            Case("a conversation", { window in
                Self.learned(window)
                window.state.messages = messages
            }),
        ])
        try inBothLanguages(.tryIt, [Case("compared") { window in
            Self.learned(window)
            window.state.comparison = Comparison(prompt: "Dear all,", left: " hello", right: " good morning", writing: true)
            _ = window.show(.tryIt)
            window.set(window.words("try_mode"), to: TryScreen.Mode.comparison)
            XCTAssertTrue(window.host.root.texts.contains("Dear all, good morning"), window.host.root.outline)
        }])
    }

    @MainActor func testShare() async throws {
        try inBothLanguages(.share, [
            Case("nothing", { _ in }),
            Case("two adapters and a report", { window in
                Self.ready(window)
                window.state.adapters = [adapter("a", "Messages"), adapter("b", "Messages 2")]
                window.state.report = RunReport(
                    json: "{}", steps: 100, seconds: 150, before: 3.4, after: nil, memory: 150_000_000, runtime: "onnxruntime 1.24.2",
                    phone: "Test1,1")
            }),
            Case("packing", { window in
                Self.ready(window)
                window.state.packing = true
            }),
            Case("packed", { window in
                window.main.share.shared = SharedFile(url: URL(fileURLWithPath: "/x/messages.zip"), subject: "Adapter “Messages”")
            }),
        ])
    }

    /// On each screen, above all else.
    @MainActor func testProblems() async throws {
        for destination in Destination.allCases {
            try inBothLanguages(destination, [
                Case("with details", { $0.state.problem = Problem(.bundleDamaged, [], detail: "weights.bin: sha256 differs") }),
                Case("of the settings", { $0.state.problem = .notifications }),
                Case("of a run", { $0.state.problem = .interrupted }),
            ])
        }
    }

    @MainActor func testTheLossIsDrawnAndSaid() async throws {
        let window = try Window()
        defer { window.close() }
        Self.ready(window)
        XCTAssertNil(window.show(.train).first("Chart"))
        XCTAssertTrue(window.host.root.texts.contains("The curve appears with the first steps."))
        window.state.run = runState(
            .training, step: 3, steps: 10, training: [LossPoint(1, 4), LossPoint(2, 3.5), LossPoint(3, .nan)],
            evaluation: [LossPoint(0, 4.2)])
        let chart = try XCTUnwrap(window.show(.train).first("Chart"))
        XCTAssertEqual(chart.all("LineMark").map(\.text), ["1,4.0", "2,3.5", "0,4.2"])
        XCTAssertEqual(chart.all("PointMark").map(\.text), ["0,4.2"])
        XCTAssertEqual(chart.label, "Loss: how wrong the guesses are")
        XCTAssertEqual(chart.value, window.main.train.chart.spoken)
    }

    @MainActor func testTheLayersAreDrawnAsTheyAreTreatedAndSaid() async throws {
        let window = try Window()
        defer { window.close() }
        Self.ready(window)
        window.state.run = runState(.training, step: 1, steps: 10, roles: [.trained, .passed, .skipped, .trained], layer: 1)
        _ = window.show(.train)
        XCTAssertNil(window.host.root.all.first { $0.label == "Layers at work" })
        window.tap("Details", "Disclosure")
        let strip = try XCTUnwrap(window.host.root.all.first { $0.label == "Layers at work" })
        XCTAssertEqual(strip.value, "4 layers. Trained now: 1, 4. Passed through: 2.")
        let boxes = strip.all("Shape").compactMap { $0.styles["drawn"] }
        // A box and the mark below it a layer, then the legend's four.
        XCTAssertEqual(boxes, [
            "fill accent", "fill clear", "fill accent", "fill orange", "border secondary", "fill clear", "fill accent", "fill clear",
            "fill accent", "fill accent", "border secondary", "fill orange",
        ])
    }

    @MainActor func testWhoWantsLittleMotionGetsNone() async throws {
        let window = try Window()
        defer { window.close() }
        Self.ready(window)
        window.state.run = runState(.training, step: 1, steps: 10, training: [LossPoint(1, 4)], roles: [.trained], layer: 0)
        _ = window.show(.train)
        window.tap("Details", "Disclosure")
        XCTAssertTrue(window.host.root.all.contains { $0.styles["animation"] == "some" })
        window.host.environment.accessibilityReduceMotion = true
        XCTAssertEqual(Set(window.host.update().all.compactMap { $0.styles["animation"] }), ["none"])
    }
}
