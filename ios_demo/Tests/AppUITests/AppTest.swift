import AppModel
import BackgroundTasks
import Foundation
import UIKit
import UserNotifications
import XCTest
@testable import LCSBMobile

/// What the app has of the system, against stand-ins of it.
final class AppTest: XCTestCase, @unchecked Sendable {
    @MainActor private func work(_ trainAtNight: @escaping @MainActor () async -> Bool = { true }) -> BackgroundTasksWork {
        BGTaskScheduler.shared.reset()
        let work = BackgroundTasksWork()
        work.register(trainAtNight: trainAtNight)
        return work
    }

    @MainActor private func wait(_ condition: () -> Bool) async throws {
        for _ in 0..<2000 where !condition() { try await Task.sleep(nanoseconds: 1_000_000) }
        XCTAssertTrue(condition())
    }

    @MainActor func testTheNightIsAskedForWithPowerAndWithoutANetwork() async throws {
        let work = work()
        work.scheduleNight(wanted: true)
        let request = try XCTUnwrap(BGTaskScheduler.shared.requests.first as? BGProcessingTaskRequest)
        XCTAssertEqual(request.identifier, taskIdentifier("night"))
        XCTAssertTrue(request.requiresExternalPower)
        XCTAssertFalse(request.requiresNetworkConnectivity)
        work.scheduleNight(wanted: false)
        XCTAssertTrue(BGTaskScheduler.shared.requests.isEmpty)
    }

    @MainActor func testTheNightsTaskEndsWithTheTraining() async throws {
        let kept = work { true }
        let task = BGProcessingTask(identifier: taskIdentifier("night"))
        BGTaskScheduler.shared.handlers[task.identifier]!(task)
        try await wait { !task.completed.isEmpty }
        XCTAssertEqual(task.completed, [true])
        _ = kept
    }

    @MainActor func testTheSystemMayEndTheNight() async throws {
        let kept = work {
            while !Task.isCancelled { try? await Task.sleep(nanoseconds: 1_000_000) }
            return false
        }
        let task = BGProcessingTask(identifier: taskIdentifier("night"))
        BGTaskScheduler.shared.handlers[task.identifier]!(task)
        XCTAssertTrue(task.completed.isEmpty)
        task.expirationHandler?()
        try await wait { !task.completed.isEmpty }
        XCTAssertEqual(task.completed, [false])
        _ = kept
    }

    @MainActor func testARunGoesOnWhenTheAppLeavesTheScreen() async {
        let work = work()
        XCTAssertTrue(work.beginContinued(title: "Training tiny", text: "Opening") {})
        let request = BGTaskScheduler.shared.requests.first as? BGContinuedProcessingTaskRequest
        XCTAssertEqual(request?.identifier, taskIdentifier("run"))
        XCTAssertEqual(request?.strategy, .fail)
        let task = BGContinuedProcessingTask(identifier: taskIdentifier("run"), title: "Training tiny", subtitle: "Opening")
        BGTaskScheduler.shared.handlers[task.identifier]!(task)
        work.showContinued(done: 3, total: 8, title: "Training tiny", text: "Step 3 of 8")
        XCTAssertEqual(task.progress.completedUnitCount, 3)
        XCTAssertEqual(task.progress.totalUnitCount, 8)
        XCTAssertEqual(task.subtitle, "Step 3 of 8")
        work.endContinued(success: true)
        XCTAssertEqual(task.completed, [true])
        work.endContinued(success: true)
        XCTAssertEqual(task.completed, [true])
    }

    @MainActor func testTheSystemMayEndARunThatGoesOn() async throws {
        let work = work()
        var told = 0
        XCTAssertTrue(work.beginContinued(title: "", text: "") { told += 1 })
        let task = BGContinuedProcessingTask(identifier: taskIdentifier("run"), title: "", subtitle: "")
        BGTaskScheduler.shared.handlers[task.identifier]!(task)
        task.expirationHandler?()
        try await wait { told == 1 }
        XCTAssertEqual(task.completed, [false])
        XCTAssertEqual(UIApplication.shared.running.count, 1)  // to save
        work.endGrace()
        XCTAssertTrue(UIApplication.shared.running.isEmpty)
    }

    @MainActor func testARunThatEndsBeforeTheSystemBeginsItsTask() async {
        let work = work()
        XCTAssertTrue(work.beginContinued(title: "", text: "") {})
        work.endContinued(success: true)
        XCTAssertTrue(BGTaskScheduler.shared.requests.isEmpty)
        let late = BGContinuedProcessingTask(identifier: taskIdentifier("run"), title: "", subtitle: "")
        BGTaskScheduler.shared.handlers[late.identifier]!(late)
        XCTAssertEqual(late.completed, [true])
    }

    @MainActor func testASystemThatTakesNothing() async {
        let work = work()
        BGTaskScheduler.shared.refusal = CancellationError()
        XCTAssertFalse(work.beginContinued(title: "", text: "") {})
        work.scheduleNight(wanted: true)
        XCTAssertTrue(BGTaskScheduler.shared.requests.isEmpty)
    }

    @MainActor func testSomeSecondsToSave() async {
        let work = work()
        work.beginGrace()
        work.beginGrace()
        XCTAssertEqual(UIApplication.shared.running.count, 1)
        UIApplication.shared.running.values.first?()  // the system's patience ends
        XCTAssertTrue(UIApplication.shared.running.isEmpty)
        work.endGrace()
        work.keepAwake(true)
        XCTAssertTrue(UIApplication.shared.isIdleTimerDisabled)
        work.keepAwake(false)
        XCTAssertFalse(UIApplication.shared.isIdleTimerDisabled)
    }

    @MainActor func testThePhoneSaysWhatItIsAt() async throws {
        (UIDevice.current.batteryLevel, UIDevice.current.batteryState) = (0.424, .unplugged)
        let phone = Phone.shared
        XCTAssertTrue(UIDevice.current.isBatteryMonitoringEnabled)
        (UIDevice.current.batteryLevel, UIDevice.current.batteryState) = (0.8, .charging)
        NotificationCenter.default.post(name: UIDevice.batteryStateDidChangeNotification, object: nil)
        try await wait { phone.vitals().battery == 80 }
        XCTAssertTrue(phone.vitals().charging)
        XCTAssertEqual(phone.vitals().thermal, .nominal)
        XCTAssertFalse(phone.vitals().lowPower)
        XCTAssertEqual(phone.availableMemory(), 3_000_000_000)
        XCTAssertFalse(phone.name.isEmpty)
        XCTAssertEqual([.nominal, .fair, .serious, .critical].map(Phone.thermal), [.nominal, .fair, .serious, .critical])
    }

    @MainActor func testMemoryWarningsAreHeard() async throws {
        var heard = 0
        MemoryWarnings.shared.observe { heard += 1 }
        NotificationCenter.default.post(name: UIApplication.didReceiveMemoryWarningNotification, object: nil)
        try await wait { heard == 1 }
    }

    func testFilesThatMayNotBeRead() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let file = directory.appendingPathComponent("x.txt")
        try Data("x".utf8).write(to: file)
        let files = PickedFiles()
        XCTAssertEqual(try files.reach(file) { try Data(contentsOf: $0) }, Data("x".utf8))
        XCTAssertEqual(files.remember(file).flatMap(files.recall)?.path, file.path)
        let lost = directory.appendingPathComponent("refused.txt")
        XCTAssertThrowsError(try files.reach(lost) { $0 }) { XCTAssertEqual(($0 as? AccessLost)?.path, lost.path) }
        XCTAssertThrowsError(try files.reach(file) { _ in throw CancellationError() }) { XCTAssertTrue($0 is CancellationError) }
    }

    func testNoticesAreShownWhereTheyAreAllowed() async {
        let center = UNUserNotificationCenter.current()
        (center.isAllowed, center.shown) = (false, [])
        let refused = await Notices().ask()
        XCTAssertFalse(refused)
        center.isAllowed = true
        let allowed = await Notices().ask()
        XCTAssertTrue(allowed)
        await Notices().post(title: "Training tiny", text: "Finished")
        XCTAssertEqual(center.shown.map(\.content.body), ["Finished"])
    }
}
