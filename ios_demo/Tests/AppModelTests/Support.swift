import Foundation
import LCSBKit
import XCTest
@testable import AppModel

let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
let testBundles = URL(
    fileURLWithPath: ProcessInfo.processInfo.environment["LCSB_TEST_BUNDLES"] ?? "\(repository.path)/build/device-bundles")

func catalog(_ language: String) throws -> CatalogWords {
    try CatalogWords(repository.appendingPathComponent("ios_demo/App/Localizable.xcstrings"), language: language)
}

/// A phone whose state the test sets.
final class FakeDevice: Device {
    private let state = Locked<(vitals: Vitals, memory: Int?)>((Vitals(battery: 80, thermal: .nominal), 3_000_000_000))

    let name = "Test1,1"
    func vitals() -> Vitals { state.with { $0.vitals } }
    func availableMemory() -> Int? { state.with { $0.memory } }

    func set(_ change: (inout Vitals) -> Void) { state.with { change(&$0.vitals) } }
    func setMemory(_ bytes: Int?) { state.with { $0.memory = bytes } }
}

final class FakeNotifier: Notifier {
    let allowed = Locked(true)
    private let state = Locked<(asked: Int, posted: [String])>((0, []))

    var asked: Int { state.with { $0.asked } }
    var posted: [String] { state.with { $0.posted } }

    func ask() async -> Bool {
        state.with { $0.asked += 1 }
        return allowed.with { $0 }
    }

    func post(title: String, text: String) async { state.with { $0.posted.append("\(title): \(text)") } }
}

/// The system's background work. `continues`: as iOS 26 lets a run go on.
@MainActor final class FakeBackground: BackgroundWork {
    var continues = false
    var shown: [String] = []
    var expired: (@MainActor () -> Void)?
    var ended: Bool?
    var night = false
    var grace = 0
    var awake = false

    func beginContinued(title: String, text: String, expired: @escaping @MainActor () -> Void) -> Bool {
        (self.expired, ended) = (expired, nil)
        return continues
    }
    func showContinued(done: Int, total: Int, title: String, text: String) { shown.append("\(title): \(text)") }
    func endContinued(success: Bool) { ended = success }
    func scheduleNight(wanted: Bool) { night = wanted }
    func beginGrace() { grace += 1 }
    func endGrace() { grace -= 1 }
    func keepAwake(_ on: Bool) { awake = on }
}

/// Files that may be out of reach.
final class FakeFiles: FileAccess {
    let lost = Locked<Set<String>>([])
    private let open = OpenAccess()

    func reach<Value>(_ url: URL, _ use: (URL) throws -> Value) throws -> Value {
        if lost.with({ $0.contains(url.path) }) { throw AccessLost(path: url.path) }
        return try open.reach(url, use)
    }
    func remember(_ url: URL) -> Data? { open.remember(url) }
    func recall(_ bookmark: Data) -> URL? { open.recall(bookmark) }
}

final class FakeProtection: FileProtection {
    private let state = Locked<[String: (night: Bool, backup: Bool)]>([:])

    func protect(_ directory: URL, night: Bool, backup: Bool) { state.with { $0[directory.lastPathComponent] = (night, backup) } }
    func of(_ name: String) -> (night: Bool, backup: Bool)? { state.with { $0[name] } }
}

/// The clock as it is, with shorter waits; it may be set.
final class FakeTime: Timekeeper {
    private let offset = Locked(0.0)

    func now() -> Date { Date() + offset.with { $0 } }
    func sleep(seconds: Double) async { try? await Task.sleep(nanoseconds: UInt64(seconds * 1e7)) }
    func advance(_ seconds: Double) { offset.with { $0 += seconds } }
}

/// The app with the tiny bundle and the sample messages in it, the real runtime, and a phone that does as it is told.
@MainActor final class Phone {
    let root: URL
    let places: Places
    let device = FakeDevice()
    let notifier = FakeNotifier()
    let background = FakeBackground()
    let files = FakeFiles()
    let protection = FakeProtection()
    let time = FakeTime()
    let english: CatalogWords
    let german: CatalogWords
    private(set) var app: MainModel!

    var state: AppState { app.state }
    var core: Core { app.core }

    init(demo: Bool = true) throws {
        let root = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-app-\(UUID().uuidString)")
        self.root = root
        func made(_ name: String) throws -> URL {
            let directory = root.appendingPathComponent(name)
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            return directory
        }
        places = Places(support: try made("support"), documents: try made("documents"), scratch: try made("scratch"), demo: demo ? try made("demo") : nil)
        (english, german) = (try catalog("en"), try catalog("de"))
        if let demo = places.demo {
            try FileManager.default.copyItem(at: testBundles.appendingPathComponent("tiny"), to: demo.appendingPathComponent("tiny"))
            try FileManager.default.copyItem(
                at: repository.appendingPathComponent("lcsb_mobile/tiny/messages.jsonl"), to: demo.appendingPathComponent("sample.jsonl"))
        }
    }

    /// A new process: nothing but the files.
    func start() async throws {
        let services = Services(device: device, notifier: notifier, background: background, files: files, protection: protection, time: time)
        app = MainModel(places: places, services: services, words: english)
        app.begin()
        try await settle()
    }

    /// Until nothing works any more but a run.
    func settle() async throws {
        try await wait("rest") { [self] in
            !core.bundling.worker.busy && !core.reading.worker.busy && !core.training.worker.busy && !core.keeping.worker.busy && !core.trial.worker.busy
        }
    }

    /// Lets the main actor work until `condition` holds.
    func wait(_ what: String, seconds: Double = 180, file: StaticString = #filePath, line: UInt = #line, _ condition: () -> Bool) async throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while !condition() {
            if ContinuousClock.now > end {
                let run = "\(state.run.phase), step \(state.run.step), \(state.problem?.detail ?? state.problem?.key ?? "no problem")"
                XCTFail("no \(what); \(run)", file: file, line: line)
                throw CancellationError()
            }
            try await Task.sleep(nanoseconds: 2_000_000)
        }
    }

    func end() async {
        app?.train.stop()
        app?.tryIt.stop()
        app?.model.cancel()
        app?.data.cancel()
        if let app {
            await app.core.training.finish()
            await app.core.bundling.finish()
            await app.core.reading.worker.finish()
            await app.core.keeping.worker.finish()
            await app.core.trial.finish()
        }
        try? FileManager.default.removeItem(at: root)
    }

    // What tests do often

    func useSample() async throws {
        app.data.addSample()
        try await wait("the sample") { [self] in state.data?.summary != nil && state.reading == nil }
    }

    func file(_ name: String, _ bytes: [UInt8]) throws -> URL {
        let file = root.appendingPathComponent("outside").appendingPathComponent(name)
        try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: file)
        return file
    }

    func file(_ name: String, _ text: String) throws -> URL { try file(name, Array(text.utf8)) }

    func add(_ bundle: String) async throws {
        app.model.add(folder: testBundles.appendingPathComponent(bundle))
        try await wait(bundle) { [self] in state.chosen == bundle && state.transfer == nil && !core.bundling.worker.busy }
        try await settle()
    }

    func begin(steps: Int) {
        core.settings[\.steps] = steps
        app.train.start()
    }

    func waitForEnd(_ phase: RunPhase = .finished, file: StaticString = #filePath, line: UInt = #line) async throws {
        try await wait("\(phase)", file: file, line: line) { [self] in state.run.phase == phase && !core.training.running }
    }

    func waitForSteps(_ count: Int) async throws {
        try await wait("\(count) steps") { [self] in state.run.step >= count || !core.training.running }
        XCTAssertGreaterThanOrEqual(state.run.step, count)
    }

    func adapter(_ bundle: String = "tiny") throws -> [Float] {
        let info = state.bundles.first { $0.name == bundle }!
        let files = try checkpointFiles(core.runs.state(bundle))
        return try newestGood(files, info.layers, info.adapterSize).checkpoint.state.adapter.array
    }

    /// Names in a directory of the app's, hidden ones too.
    func names(_ directory: URL) -> [String] { ((try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []).sorted() }

    /// The sentence on the screen is `english`, in German `german`; then it is closed.
    func assertSaid(_ english: String, _ german: String, _ fault: Fault? = nil, file: StaticString = #filePath, line: UInt = #line) async throws {
        try await wait(english, file: file, line: line) { [self] in state.problem != nil && state.transfer == nil && state.reading == nil && !state.run.active }
        try await settle()
        let problem = state.problem!
        XCTAssertEqual(problem.what(self.english), english, file: file, line: line)
        XCTAssertEqual(problem.what(self.german), german, file: file, line: line)
        XCTAssertEqual(problem.fault, fault, problem.detail ?? "", file: file, line: line)
        XCTAssertEqual(app.problem?.what, english, file: file, line: line)
        XCTAssertGreaterThan(app.problem?.todo.count ?? 0, 10, file: file, line: line)
        app.dismissProblem()
        XCTAssertNil(app.problem, file: file, line: line)
    }
}

/// A test on a phone that is gone afterwards.
@MainActor func onPhone(demo: Bool = true, _ test: @MainActor (Phone) async throws -> Void) async throws {
    let phone = try Phone(demo: demo)
    do {
        try await phone.start()
        try await test(phone)
    } catch {
        await phone.end()
        throw error
    }
    await phone.end()
}
