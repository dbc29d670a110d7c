import Foundation
import SwiftUI
import XCTest
@testable import AppModel
@testable import AppUI

let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
let testBundles = URL(
    fileURLWithPath: ProcessInfo.processInfo.environment["LCSB_TEST_BUNDLES"] ?? "\(repository.path)/build/device-bundles")
let sampleMessages = repository.appendingPathComponent("lcsb_mobile/tiny/messages.jsonl")

struct StillDevice: Device {
    let name = "Test1,1"
    func vitals() -> Vitals { Vitals(battery: 80, charging: true, thermal: .nominal) }
    func availableMemory() -> Int? { 3_000_000_000 }
}

struct NoNotices: Notifier {
    func ask() async -> Bool { true }
    func post(title: String, text: String) async {}
}

@MainActor final class NoBackground: BackgroundWork {
    func beginContinued(title: String, text: String, expired: @escaping @MainActor () -> Void) -> Bool { false }
    func showContinued(done: Int, total: Int, title: String, text: String) {}
    func endContinued(success: Bool) {}
    func scheduleNight(wanted: Bool) {}
    func beginGrace() {}
    func endGrace() {}
    func keepAwake(_ on: Bool) {}
}

/// The app's window on a screen, in a directory of its own, in a language.
@MainActor final class Window {
    let root: URL
    let words: CatalogWords
    let main: MainModel
    let host: ViewHost<RootView>
    /// What the views asked the system to open.
    private(set) var opened: [URL] = []
    private static var catalogs: [String: CatalogWords] = [:]
    private static var opening: @MainActor (URL) -> Void = { _ in }

    var state: AppState { main.state }

    init(_ language: String = "en", demo: Bool = false) throws {
        let root = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-views-\(UUID().uuidString)")
        self.root = root
        func made(_ name: String) throws -> URL {
            let directory = root.appendingPathComponent(name)
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            return directory
        }
        let words = try Self.catalogs[language] ?? CatalogWords(
            repository.appendingPathComponent("ios_demo/App/Localizable.xcstrings"), language: language)
        (self.words, Self.catalogs[language]) = (words, words)
        LocalizedStringKey.lookUp = { key in
            guard let forms = words.forms[key] else {
                XCTFail("no sentence \(key) in \(language)")
                return key
            }
            return forms["other"]!
        }
        let places = Places(
            support: try made("support"), documents: try made("documents"), scratch: try made("scratch"),
            demo: demo ? try made("demo") : nil)
        if let demo = places.demo {
            try FileManager.default.copyItem(at: testBundles.appendingPathComponent("tiny"), to: demo.appendingPathComponent("tiny"))
            try FileManager.default.copyItem(at: sampleMessages, to: demo.appendingPathComponent("sample.jsonl"))
        }
        main = MainModel(
            places: places, services: Services(device: StillDevice(), notifier: NoNotices(), background: NoBackground()), words: words)
        var environment = EnvironmentValues()
        environment.openURL = OpenURLAction { url in
            Self.opening(url)
            return .handled
        }
        host = ViewHost(RootView(main: main), environment: environment)
        Self.opening = { [weak self] in self?.opened.append($0) }
    }

    func close() { try? FileManager.default.removeItem(at: root) }

    func show(_ destination: Destination) -> Node {
        main.shown = destination
        return host.update()
    }

    /// A button that is there and not disabled.
    func tap(_ name: String, _ kind: String = "Button", number: Int = 0, file: StaticString = #filePath, line: UInt = #line) {
        if host.tap(name, kind, number: number) == nil { XCTFail("no \(kind) \(name)\n\(host.root.outline)", file: file, line: line) }
    }

    func set<Value>(_ name: String, to value: Value, file: StaticString = #filePath, line: UInt = #line) {
        if host.set(name, to: value) == nil { XCTFail("no field \(name)\n\(host.root.outline)", file: file, line: line) }
    }

    /// A button of what came over the screen: "Dialog", "Alert", "Sheet".
    func tap(in over: String, _ name: String, file: StaticString = #filePath, line: UInt = #line) {
        let found = host.update().first(over)?.all("Button").first { $0.spoken == name && $0.isEnabled }
        if found?.action?() == nil { XCTFail("no \(name) in \(over)\n\(host.root.outline)", file: file, line: line) }
        host.update()
    }

    /// What the person picked of the system's files.
    func pick(_ url: URL, file: StaticString = #filePath, line: UInt = #line) {
        let picker = host.update().first("FileImporter")
        if picker?.picked?(.success([url])) == nil { XCTFail("no picker\n\(host.root.outline)", file: file, line: line) }
        host.update()
    }

    func isThere(_ name: String, _ kind: String = "Button") -> Bool { host.update().first(kind, name) != nil }
    func isEnabled(_ name: String, _ kind: String = "Button") -> Bool { host.update().first(kind, name)?.isEnabled ?? false }

    /// Lets the main actor work until `condition` holds.
    func wait(
        _ what: String, seconds: Double = 120, file: StaticString = #filePath, line: UInt = #line, _ condition: () -> Bool
    ) async throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while !condition() {
            if ContinuousClock.now > end {
                XCTFail("no \(what); \(state.problem?.detail ?? "no problem")\n\(host.update().outline)", file: file, line: line)
                throw CancellationError()
            }
            try await Task.sleep(nanoseconds: 5_000_000)
        }
    }
}

/// What a screen leaves unsaid to who does not see it, or says in the key of a sentence.
@MainActor func faults(_ root: Node) -> [String] {
    let named: Set = [
        "Button", "Toggle", "Slider", "Picker", "TextField", "ProgressView", "ShareLink", "MenuButton", "Disclosure", "PasteButton", "Tab",
    ]
    let drawn: Set = ["Chart", "Shape", "Image", "LineMark", "PointMark"]
    var found: [String] = []
    func look(_ node: Node, _ covered: Bool) {
        let said = covered || node.isHidden || (node.ignoresChildren && node.label != nil)
        if named.contains(node.kind) && !covered && node.spoken.isEmpty { found.append("\(node.kind) without a name:\n\(node.outline)") }
        if drawn.contains(node.kind) && !said && node.label == nil { found.append("\(node.kind) that is not said:\n\(node.outline)") }
        if node.ignoresChildren && node.label == nil && !covered { found.append("what is in it is not said:\n\(node.outline)") }
        if node.kind == "Slider" && (node.value ?? "").isEmpty { found.append("\(node.spoken): its value is a share of its way") }
        for text in [node.text, node.label ?? "", node.value ?? ""] where text.wholeMatch(of: /[a-z]+(_[a-z]+)+/) != nil {
            found.append("the key of a sentence: \(text)")
        }
        for child in node.children { look(child, said || node.label != nil) }
    }
    look(root, false)
    return found
}

func bundle(_ name: String, checked: Bool = true, verdict: Verdict? = nil) -> BundleInfo {
    BundleInfo(
        name: name, place: .library, directory: name, source: "SmolLM2-135M-Instruct", bytes: 93_000_000, layers: 4, adapterSize: 4000,
        seqLen: 256, schedule: [[.trained, .trained, .skipped, .skipped], [.passed, .skipped, .trained, .trained]], digest: "d",
        chats: true, predictedMemory: checked ? 150_000_000 : nil, secondsAStep: checked ? 1.5 : nil, checked: checked,
        verdict: verdict)
}

func adapter(_ id: String, _ name: String) -> AdapterInfo {
    AdapterInfo(
        id: id, name: name, bundle: "one", digest: "d", date: Date(timeIntervalSince1970: 1_750_000_000), origin: .trained,
        data: "messages", steps: 100, before: 3.4, after: 1.42, bytes: 16_000)
}

let summary = DataSummary(
    examples: 6, tokens: 900, counted: 700, cut: 1, dropped: 0, sequences: 3, conversations: 0,
    previews: [
        [TextPiece(text: "Hello", counted: false), TextPiece(text: " there", counted: true)],
        [TextPiece(text: "Another", counted: true)],
    ])

@MainActor func runState(
    _ phase: RunPhase, step: Int = 40, steps: Int = 100, training: [LossPoint] = [], evaluation: [LossPoint] = [], roles: [LayerRole] = [],
    layer: Int = -1, decision: Decision = Decision()
) -> RunState {
    var run = RunState()
    (run.phase, run.step, run.steps, run.training, run.evaluation) = (phase, step, steps, training, evaluation)
    (run.roles, run.layer, run.secondsAStep, run.decision) = (roles, layer, 1.5, decision)
    return run
}

/// A state of the app that has a name.
struct Case {
    let name: String
    let change: @MainActor (Window) -> Void

    init(_ name: String, _ change: @escaping @MainActor (Window) -> Void) { (self.name, self.change) = (name, change) }
}
