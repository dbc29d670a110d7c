import Foundation
import XCTest
@testable import AppModel

/// Training that nobody looks at, and a phone that is not well.
final class NightTest: XCTestCase {
    @MainActor private static func begin(_ phone: Phone, steps: Int = 200, untilStep: Int = 1) async throws {
        try await phone.useSample()
        phone.begin(steps: steps)
        try await phone.waitForSteps(untilStep)
    }

    func testARunThatTheSystemLetsGoOnTrainsUnseenAndSaysWhereItIs() async throws {
        try await onPhone { phone in
            phone.background.continues = true
            try await Self.begin(phone, steps: 40)
            XCTAssertTrue(phone.background.awake)
            phone.app.wentToBack()
            try await phone.waitForEnd()
            XCTAssertEqual(phone.background.ended, true)
            XCTAssertTrue(phone.background.shown.contains("Training tiny: Step 20 of 40"), "\(phone.background.shown)")
            try await phone.wait("the note") { phone.notifier.posted == ["Training tiny: Finished after 40 steps"] }
            XCTAssertFalse(phone.background.night, "nothing is left to do")
        }
    }

    func testWhereItMayNotGoOnItIsSavedAndGoesOnByItself() async throws {
        try await onPhone { phone in
            try await Self.begin(phone)
            phone.app.wentToBack()
            XCTAssertEqual(phone.background.grace, 1)
            try await phone.waitForEnd(.interrupted)
            let step = phone.state.run.step
            try await phone.wait("the end of the grace") { phone.background.grace == 0 }
            XCTAssertEqual(phone.app.train.sentence, "Step \(step) of 200. Training goes on by itself when you open the app.")
            try await phone.wait("the note") { phone.notifier.posted == ["Training tiny: Saved at step \(step) of 200. Open the app to go on."] }
            XCTAssertNil(phone.state.problem)
            phone.app.cameToFront()
            try await phone.waitForSteps(step + 1)
        }
    }

    func testTheProcessDiedWhileItWaitedAndTheNextGoesOnByItself() async throws {
        try await onPhone { phone in
            try await Self.begin(phone)
            phone.app.wentToBack()
            try await phone.waitForEnd(.interrupted)
            let step = phone.state.run.step
            try await phone.start()
            XCTAssertNil(phone.state.problem)
            XCTAssertEqual(phone.state.run.phase, .interrupted)
            phone.app.cameToFront()
            try await phone.waitForSteps(step + 1)
            XCTAssertEqual(phone.state.run.training.count, phone.state.run.step)
        }
    }

    func testTheSystemEndsWhatItLetGoOn() async throws {
        try await onPhone { phone in
            phone.background.continues = true
            try await Self.begin(phone)
            phone.app.wentToBack()
            phone.background.expired?()
            try await phone.waitForEnd(.interrupted)
            XCTAssertEqual(phone.core.runs.read("tiny")?.wanted, .waiting)
            phone.app.cameToFront()
            try await phone.wait("training") { phone.state.run.phase == .training }
        }
    }

    func testARunThatIsSeenStaysWhereTheSystemEndsWhatItLetGoOn() async throws {
        try await onPhone { phone in
            phone.background.continues = true
            try await Self.begin(phone)
            phone.background.expired?()
            let step = phone.state.run.step
            try await phone.waitForSteps(step + 2)
            phone.app.wentToBack()
            try await phone.waitForEnd(.interrupted)
        }
    }

    func testAnInterruptedRunGoesOnAtNightAndAPausedOneDoesNot() async throws {
        try await onPhone { phone in
            try await Self.begin(phone)
            phone.app.wentToBack()
            try await phone.waitForEnd(.interrupted)
            XCTAssertTrue(phone.background.night)
            XCTAssertEqual(phone.protection.of("runs")?.night, true, "it can be read while the phone is locked")
            phone.app.train.trainsAtNight = false
            XCTAssertFalse(phone.background.night)
            XCTAssertEqual(phone.protection.of("runs")?.night, false)
            phone.app.train.trainsAtNight = true
            XCTAssertTrue(phone.background.night)

            phone.device.set { $0.charging = true }
            let step = phone.state.run.step
            let night = Task { await phone.app.trainAtNight() }
            try await phone.wait("the night") { phone.core.training.running }
            try await phone.waitForSteps(step + 2)
            XCTAssertFalse(phone.background.awake, "the screen stays off")
            night.cancel()  // the system's time is over
            let done = await night.value
            XCTAssertFalse(done)
            XCTAssertTrue(phone.background.night, "it is asked for again")
            XCTAssertEqual(phone.core.runs.read("tiny")?.wanted, .waiting)

            phone.app.cameToFront()
            try await phone.waitForSteps(phone.state.run.step + 1)
            phone.app.train.pause()
            try await phone.waitForEnd(.paused)
            XCTAssertFalse(phone.background.night, "who paused it decides when it goes on")
            let nothing = await phone.app.trainAtNight()
            XCTAssertTrue(nothing)
            XCTAssertEqual(phone.state.run.phase, .paused)
        }
    }

    func testARunIsLeftToTheNightAndBeginsThen() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.app.train.trainsAtNight = false
            phone.core.settings[\.steps] = 8
            XCTAssertTrue(phone.app.train.showsStartAtNight)
            phone.app.train.startAtNight()
            try await phone.waitForEnd(.scheduled)
            XCTAssertEqual(phone.app.train.title, "Waits for the night")
            XCTAssertEqual(phone.app.train.startTitle, "Start now")
            XCTAssertTrue(phone.background.night, "that it was asked for counts, not the switch")
            phone.app.wentToBack()
            try await phone.start()
            phone.app.cameToFront()
            XCTAssertEqual(phone.state.run.phase, .scheduled)
            phone.app.wentToBack()
            phone.device.set { $0.charging = true }
            let done = await phone.app.trainAtNight()
            XCTAssertTrue(done)
            XCTAssertEqual(phone.state.run.phase, .finished)
            try await phone.wait("the note") { phone.notifier.posted == ["Training tiny: Finished after 8 steps"] }
            XCTAssertEqual(phone.app.share.rows.count, 1)
        }
    }

    func testARunThatWasLeftToTheNightAndIsStoppedLeavesNothing() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.app.train.startAtNight()
            try await phone.waitForEnd(.scheduled)
            phone.app.train.stop()
            try await phone.waitForEnd(.none)
            XCTAssertFalse(phone.background.night)
            XCTAssertEqual(phone.names(phone.places.runs), [])
        }
    }

    func testWithoutPowerTheNightIsOver() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.app.train.startAtNight()
            try await phone.waitForEnd(.scheduled)
            phone.app.wentToBack()
            let done = await phone.app.trainAtNight()
            XCTAssertFalse(done)
            XCTAssertEqual(phone.state.run.phase, .interrupted)
            XCTAssertEqual(phone.app.train.sentence, "Step 0 of 100. At night training goes on while the device is charging.")
            XCTAssertTrue(phone.background.night)
        }
    }

    func testWithoutARunTheNightHasNothingToDo() async throws {
        try await onPhone { phone in
            let done = await phone.app.trainAtNight()
            XCTAssertTrue(done)
        }
    }

    func testAHotPhoneIsLeftToCoolAWarmOneGoesSlowerAndTheRunGoesOnByItself() async throws {
        try await onPhone { phone in
            try await Self.begin(phone)
            phone.device.set { $0.thermal = .fair }
            try await phone.wait("a slow step") { phone.state.run.decision.reason == .warm }
            XCTAssertTrue(phone.app.train.sentence.hasSuffix("Slower, because the device is warm."), phone.app.train.sentence)
            phone.device.set { $0.thermal = .serious }
            try await phone.wait("the wait") { phone.state.run.phase == .waiting }
            XCTAssertEqual(phone.app.train.sentence, "The device is hot. Training goes on by itself when it has cooled down.")
            XCTAssertTrue(phone.core.training.running)
            let step = phone.state.run.step
            phone.device.set { $0.thermal = .nominal }
            try await phone.waitForSteps(step + 1)
            XCTAssertEqual(phone.state.run.phase, .training)
        }
    }

    func testALowBatteryMakesItWaitAndChargingMakesItGoOn() async throws {
        try await onPhone { phone in
            phone.device.set { $0.battery = 10 }
            try await phone.useSample()
            phone.begin(steps: 100)
            try await phone.wait("the wait") { phone.state.run.phase == .waiting }
            XCTAssertEqual(phone.state.run.decision.reason, .battery)
            XCTAssertTrue(phone.app.train.sentence.contains("20%"), phone.app.train.sentence)
            phone.device.set { $0.charging = true }
            try await phone.waitForSteps(1)
        }
    }

    func testLowPowerModeMakesItSlower() async throws {
        try await onPhone { phone in
            try await Self.begin(phone)
            phone.device.set { $0.lowPower = true }
            try await phone.wait("a slow step") { phone.app.train.sentence.hasSuffix("Slower, because Low Power Mode is on.") }
        }
    }

    func testAWarningOfMemorySavesTheRunWhichWaitsAndGoesOn() async throws {
        try await onPhone { phone in
            try await Self.begin(phone)
            phone.app.memoryIsShort()
            try await phone.wait("the wait") { phone.state.run.phase == .waiting }
            XCTAssertEqual(phone.state.run.decision.reason, .memory)
            let step = phone.state.run.step
            phone.time.advance(61)
            try await phone.waitForSteps(step + 1)
        }
    }

    func testARunThatIsLeftTooLittleMemoryWaitsAndGoesOnByItself() async throws {
        try await onPhone { phone in
            try await Self.begin(phone)
            phone.app.train.pause()
            try await phone.waitForEnd(.paused)
            phone.device.setMemory(1_000_000)
            phone.app.train.start()
            try await phone.wait("the wait") { phone.state.run.phase == .waiting }
            XCTAssertEqual(phone.state.run.decision.reason, .memory)
            XCTAssertNil(phone.state.problem)
            phone.device.setMemory(3_000_000_000)
            let step = phone.state.run.step
            phone.time.advance(61)
            try await phone.waitForSteps(step + 1)
        }
    }

    func testWaitingUnseenEndsTheTurn() async throws {
        try await onPhone { phone in
            phone.background.continues = true
            try await Self.begin(phone)
            phone.app.wentToBack()
            phone.device.set { $0.thermal = .critical }
            try await phone.waitForEnd(.interrupted)
            XCTAssertEqual(phone.state.run.decision, Decision(waits: true, reason: .hot))
            XCTAssertTrue(phone.background.night)
        }
    }

    func testPauseAndStopWhileItWaits() async throws {
        try await onPhone { phone in
            try await Self.begin(phone)
            phone.device.set { $0.thermal = .serious }
            try await phone.wait("the wait") { phone.state.run.phase == .waiting }
            phone.app.train.pause()
            try await phone.waitForEnd(.paused)
            phone.app.train.start()
            try await phone.wait("the wait") { phone.state.run.phase == .waiting }
            phone.app.train.stop()
            try await phone.waitForEnd(.cancelled)
            XCTAssertEqual(phone.app.share.rows.count, 1)
        }
    }

    func testNotificationsThatAreRefusedDoNotKeepItFromTraining() async throws {
        try await onPhone { phone in
            phone.notifier.allowed.with { $0 = false }
            try await Self.begin(phone, steps: 20)
            XCTAssertEqual(phone.app.problem?.action, .openSettings)
            XCTAssertEqual(phone.app.problem?.what, "Notifications are off, so you are not told when training ends. It goes on all the same.")
            phone.app.dismissProblem()
            try await phone.waitForEnd()
            phone.begin(steps: 2)
            try await phone.waitForEnd()
            XCTAssertEqual(phone.notifier.asked, 1, "asked once")
        }
    }

    func testPauseDuringTheSelfTest() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.begin(steps: 8)
            try await phone.wait("the self-test") { phone.state.run.phase == .testing }
            phone.app.train.pause()
            try await phone.waitForEnd(.paused)
            XCTAssertFalse(phone.state.bundle!.checked)
            phone.app.train.start()
            try await phone.waitForEnd()
            XCTAssertTrue(phone.state.bundle!.checked)
        }
    }
}
