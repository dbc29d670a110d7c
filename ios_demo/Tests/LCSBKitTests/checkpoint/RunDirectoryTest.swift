import Foundation
import XCTest
@testable import LCSBKit

private let heldDirectory = "LCSB_HELD_DIRECTORY"  // what a second process of these tests holds

final class RunDirectoryTest: XCTestCase {
    private var root: URL!
    private var path: URL!

    /// In the second process: holds a directory, and says which process it is, until it is killed.
    override class func setUp() {
        guard let path = ProcessInfo.processInfo.environment[heldDirectory] else { return }
        let held = try! RunDirectory(URL(fileURLWithPath: path))
        try! "\(getpid())".write(toFile: path + ".held", atomically: true, encoding: .utf8)
        withExtendedLifetime(held) { while true { sleep(60) } }
    }

    override func setUpWithError() throws {
        root = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
        path = root.appendingPathComponent("a/run")
        try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws { try FileManager.default.removeItem(at: root) }

    private var names: [String] { listed(path) }

    private func newestStep(_ directory: RunDirectory, _ warn: (String) -> Void = { XCTFail($0) }) throws -> Int? {
        try directory.newest(3, 21, goldenIdentity, warn)?.place.step
    }

    private func at(_ step: Int) -> URL { path.appendingPathComponent(checkpointName(step)) }

    func testTheLastTwoAreKeptAndTheNewestIsFound() throws {
        let directory = try RunDirectory(path)
        XCTAssertNil(try newestStep(directory))
        for step in [0, 9, 10] { try directory.write(checkpointAt(step)) }
        XCTAssertEqual(names, ["lock", "step-00000009.safetensors", "step-00000010.safetensors"])
        XCTAssertEqual(try newestStep(directory), 10)
    }

    func testARunThatGoesOnHasTheDayOnWhichItBegan() throws {
        let directory = try RunDirectory(path)
        XCTAssertNotNil(LocalTime(try directory.beginning(3, 21)))
        try directory.write(checkpointAt(3))
        XCTAssertEqual(try directory.beginning(3, 21), "2026-02-28T23:05:09")
        XCTAssertEqual(LocalTime("2026-02-28T23:05:09")?.text, "2026-02-28T23:05:09")
    }

    func testTheNewestIsThatOfTheHighestNumber() throws {
        let others = ["step-1", "step-1234567890123456789", "step-0000000é", "step-+0000001", "xstep-00000001"]
        for name in ["step-00000007", "step-100000000", "step-99999999"] + others {
            try "".write(to: root.appendingPathComponent("\(name).safetensors"), atomically: false, encoding: .utf8)
        }
        try makeDirectories(root.appendingPathComponent("step-00000008.safetensors"))
        let wanted = ["step-100000000", "step-99999999", "step-00000007"].map { "\($0).safetensors" }
        XCTAssertEqual(try checkpointFiles(root).map(\.lastPathComponent), wanted)
        assertRefused(.checkpointDamaged, "none: cannot be read") { _ = try checkpointFiles(root.appendingPathComponent("none")) }
    }

    func testWhatAKilledProcessLeftIsRemoved() throws {
        try makeDirectories(path)
        for name in [".step-00000004.safetensors.x7", ".adapter.safetensors.x8", ".state.x9", ".spool.x1", "notes.txt"] {
            try "half".write(to: path.appendingPathComponent(name), atomically: false, encoding: .utf8)
        }
        for step in 5...7 { try writeCheckpoint(at(step), checkpointAt(step)) }
        let directory = try RunDirectory(path)
        XCTAssertEqual(try newestStep(directory), 7)
        XCTAssertEqual(names, ["lock", "notes.txt", "step-00000006.safetensors", "step-00000007.safetensors"])
    }

    func testADamagedOneIsPassedOverAndLeft() throws {
        let directory = try RunDirectory(path)
        for step in 3...4 { try directory.write(checkpointAt(step)) }
        var bytes = try Data(contentsOf: at(4))
        bytes[bytes.count - 5] ^= 16
        try bytes.write(to: at(4))
        var warnings: [String] = []
        XCTAssertEqual(try newestStep(directory) { warnings.append($0) }, 3)
        XCTAssertEqual(warnings.count, 1)
        for part in ["step-00000004.safetensors: damaged", "; going on from step-00000003"] { XCTAssert(warnings.joined().contains(part)) }
        try Data().write(to: at(3))
        let message = refusal(.checkpointDamaged) { _ = try newestStep(directory) }
        let parts = ["step-00000004", "damaged", "step-00000003", "no good checkpoint is left"]
        XCTAssertEqual(parts.compactMap { message.range(of: $0)?.lowerBound }.count, 4, message)
        XCTAssertEqual(names, ["lock", checkpointName(3), checkpointName(4)])
    }

    /// As far as a write gets on a disk that is nearly full: here the process may write no more to any file.
    func testAFullDiskLosesNothing() throws {
        let directory = try RunDirectory(path)
        try directory.write(checkpointAt(3))
        signal(SIGXFSZ, SIG_IGN)
        var limit = rlimit()
        XCTAssertEqual(getrlimit(limitOfFiles, &limit), 0)
        for bytes: rlim_t in [0, 100, 1500] {
            var full = limit
            full.rlim_cur = bytes
            let found = Result {
                XCTAssertEqual(setrlimit(limitOfFiles, &full), 0)
                defer { setrlimit(limitOfFiles, &limit) }
                try directory.write(checkpointAt(4))
            }
            assertRefused(.storageFailed, "cannot be written: File too large; free some space") { try found.get() }
            XCTAssertEqual(names, ["lock", checkpointName(3)])
            XCTAssertEqual(try newestStep(directory), 3)
        }
    }

    func testAnotherRunIsRefusedWithWhatDiffersButAConstantRatesMayBecomeLonger() throws {
        let directory = try RunDirectory(path)
        try directory.write(checkpointAt(4))
        func golden(_ change: (inout RunIdentity) -> Void) -> RunIdentity {
            var identity = goldenIdentity
            change(&identity)
            return identity
        }
        func go(_ identity: RunIdentity) throws -> Int? { try directory.newest(3, 21, identity) { XCTFail($0) }?.place.step }
        XCTAssertEqual(try go(golden { $0.train.steps = 80 }), 4)
        let other = String(repeating: "a", count: 12) + String(repeating: "c", count: 52)
        let digest = String(repeating: "d", count: 64)
        let cases = [
            (golden { $0.bundle = other }, "bundle: aaaaaaaaaaaa… then, aaaaaaaaaaaa… now"),
            (golden { $0.data = digest }, "data: bbbbbbbbbbbb… then, dddddddddddd… now"),
            (golden { $0.evaluationData = digest }, "evaluation data: none then, dddddddddddd… now"),
            (golden { $0.holdOut = 0.2 }, "hold out: 0.1 then, 0.2 now"),
            (golden { $0.initialAdapter = other }, "initial adapter: none then, aaaaaaaaaaaa… now"),
            (golden { $0.schedule.removeLast() }, "schedule: another schedule then, another schedule now"),
            (golden { $0.seed = 6 }, "seed: 5 then, 6 now"),
            (golden { $0.train.learningRate = 2e-3 }, "learning_rate: 0.001 then, 0.002 now"),
            (golden { $0.train.warmup = 1 }, "warmup: 0 then, 1 now"),
            (golden { $0.train.accumulation = 1 }, "accumulation: 2 then, 1 now"),
            (
                golden { ($0.train.steps, $0.train.lrSchedule) = (80, .linear) },
                "steps: 40 then, 80 now; lr_schedule: constant then, linear now"
            ),
        ]
        for (identity, reason) in cases {
            let message = refusal(.checkpointOtherRun) { _ = try go(identity) }
            let after = "; go on with what it was begun with, or choose another directory"
            XCTAssertEqual(message, "\(at(4).path): is of another run: \(reason)\(after)")
        }
        let lower = golden { $0.train.learningRate = 5e-4 }
        XCTAssertTrue(refusal(.checkpointOtherRun) { _ = try go(lower) }.contains("learning_rate: 0.001 then, "))
        var warnings: [String] = []
        XCTAssertEqual(try directory.newest(3, 21, lower, lowerRate: true) { warnings.append($0) }?.place.step, 4)
        XCTAssertEqual(warnings, ["going on at a learning rate of 0.0005, which was 0.001 up to step 4"])
    }

    func testOneRunAtATimeInAProcess() throws {
        let directory = try RunDirectory(path)
        assertRefused(.runBusy, "another run, of this process, uses these checkpoints") {
            _ = try RunDirectory(path.appendingPathComponent("../run"))
        }
        refusal(.runBusy) { _ = try RunDirectory(path) }
        directory.close()
        try RunDirectory(path).close()
        for (name, broken) in [("b", "lock"), ("c", ".step-00000001")] {
            try makeDirectories(root.appendingPathComponent(name).appendingPathComponent(broken))
            // What failed holds nothing.
            for _ in 0..<2 { refusal(.storageFailed) { _ = try RunDirectory(root.appendingPathComponent(name)) } }
        }
    }

    #if os(Linux) || os(macOS)
    func testOneProcessAtATimeAndItsLockGoesWithIt() throws {
        let other = try holdInAnotherProcess()
        let said = "\(other.processIdentifier)"
        let message = refusal(.runBusy) { _ = try RunDirectory(path) }
        let wait = "wait for it, or choose another directory"
        XCTAssertEqual(message, "\(path.path): another run, process \(said), uses these checkpoints; \(wait)")
        refusal(.runBusy) { _ = try RunDirectory(path) }  // to have looked does not free it
        kill(other.processIdentifier, SIGKILL)
        other.waitUntilExit()
        let directory = try RunDirectory(path)
        XCTAssertEqual(try String(contentsOf: path.appendingPathComponent("lock"), encoding: .utf8), "\(getpid())\n")
        directory.close()
    }

    /// These tests once more, of which `setUp` does not return.
    private func holdInAnotherProcess() throws -> Process {
        let test = "LCSBKitTests.RunDirectoryTest/testOneRunAtATimeInAProcess"
        let process = Process()
        #if os(macOS)
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        process.arguments = ["-XCTest", "RunDirectoryTest/testOneRunAtATimeInAProcess", Bundle(for: Self.self).bundlePath]
        #else
        process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        process.arguments = [test]
        #endif
        process.environment = ProcessInfo.processInfo.environment.merging([heldDirectory: path.path]) { $1 }
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        let said = URL(fileURLWithPath: path.path + ".held")
        for _ in 0..<1000 where !isFile(said) {
            if !process.isRunning { break }
            usleep(20_000)
        }
        XCTAssertEqual(try String(contentsOf: said, encoding: .utf8), "\(process.processIdentifier)")
        return process
    }
    #endif
}

#if canImport(Glibc)
private let limitOfFiles = __rlimit_resource_t(RLIMIT_FSIZE.rawValue)
#else
private let limitOfFiles = RLIMIT_FSIZE
#endif
