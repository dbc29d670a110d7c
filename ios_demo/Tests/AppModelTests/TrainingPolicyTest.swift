import XCTest
@testable import AppModel

final class TrainingPolicyTest: XCTestCase {
    private let well = Vitals(battery: 80, thermal: .nominal)
    private let free = Decision()
    private let hot = Decision(waits: true, reason: .hot)
    private let empty = Decision(waits: true, reason: .battery)

    private func decide(_ vitals: Vitals, _ before: Decision = Decision(), night: Bool = false) -> Decision {
        TrainingPolicy.decide(vitals, before: before, night: night)
    }

    private func with(_ change: (inout Vitals) -> Void) -> Vitals {
        var vitals = well
        change(&vitals)
        return vitals
    }

    func testAPhoneThatIsWellTrainsAtFullSpeed() { XCTAssertEqual(decide(well).delayMillisBetweenLayers, 0) }

    func testFairSlowsDownAndSeriousAndWorseWait() {
        let warm = decide(with { $0.thermal = .fair })
        XCTAssertEqual(warm, Decision(reason: .warm))
        XCTAssertEqual(warm.delayMillisBetweenLayers, 60)
        XCTAssertEqual(decide(with { $0.thermal = .serious }), hot)
        XCTAssertEqual(decide(with { $0.thermal = .critical }), hot)
        XCTAssertEqual(hot.delayMillisBetweenLayers, 0)
    }

    func testAfterSeriousItWaitsUntilBelowFair() {
        XCTAssertEqual(decide(with { $0.thermal = .fair }, hot), hot)
        XCTAssertEqual(decide(well, hot), free)
        XCTAssertEqual(decide(with { $0.thermal = .unknown }), free)
    }

    func testALowBatteryWaitsUnlessItChargesUntilItHasSomeMore() {
        XCTAssertEqual(decide(with { $0.battery = 15 }), free)
        XCTAssertEqual(decide(with { $0.battery = 14 }), empty)
        XCTAssertEqual(decide(with { ($0.battery, $0.charging) = (3, true) }), free)
        XCTAssertEqual(decide(with { $0.battery = 19 }, empty), empty)
        XCTAssertEqual(decide(with { $0.battery = 20 }, empty), free)
        XCTAssertEqual(decide(with { ($0.battery, $0.charging) = (16, true) }, empty), free)
        XCTAssertEqual(decide(with { $0.battery = -1 }), free)
    }

    func testAWarningOfMemoryWaitsAndHeatIsNamedBeforeIt() {
        XCTAssertEqual(decide(with { $0.memoryLow = true }), Decision(waits: true, reason: .memory))
        XCTAssertEqual(decide(with { ($0.memoryLow, $0.thermal) = (true, .serious) }), hot)
    }

    func testLowPowerModeSlowsDownUnlessThereIsPower() {
        XCTAssertEqual(decide(with { $0.lowPower = true }), Decision(reason: .lowPower))
        XCTAssertEqual(decide(with { ($0.lowPower, $0.charging) = (true, true) }), free)
    }

    func testAtNightItTrainsWithPowerOnly() {
        XCTAssertEqual(decide(well, night: true), Decision(waits: true, reason: .power))
        XCTAssertEqual(decide(with { $0.charging = true }, night: true), free)
        XCTAssertEqual(decide(with { ($0.charging, $0.thermal) = (true, .serious) }, night: true), hot)
    }
}
