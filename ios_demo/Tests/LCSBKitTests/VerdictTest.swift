import XCTest
@testable import LCSBKit

/// The verdict against tests/golden/verdicts.json, which scripts/golden/write_verdict_vectors.py wrote.
final class VerdictTest: XCTestCase {
    private func rows(_ name: String) throws -> [Json] {
        let rows = try Json(content: readBounded(Repository.golden("verdicts.json"), 1 << 20))[name]?.array ?? []
        XCTAssertFalse(rows.isEmpty, name)
        return rows
    }

    func testTheVerdictsAreTheDesktops() throws {
        for row in try rows("verdicts") {
            let name = row["name"]!.string!
            let expected = row["verdict"]!
            let found = try judge(before: row["before"]!.array!.map { $0.double! }, after: row["after"]!.array!.map { $0.double! })
            XCTAssertEqual(found.outcome.rawValue, expected["outcome"]!.string, name)
            XCTAssertEqual([found.examples, found.improved], [expected["examples"]!.int, expected["improved"]!.int], name)
            XCTAssertEqual(found.improvedShare, Double(found.improved) / Double(found.examples), name)
            for (value, key) in [(found.lossBefore, "loss_before"), (found.lossAfter, "loss_after"), (found.p, "p")] {
                XCTAssertEqual(value / expected[key]!.double!, 1, accuracy: 1e-12, "\(name): \(key)")  // sums in another order
            }
        }
    }

    func testTheExamplesAreTheDesktops() throws {
        for row in try rows("spreads") { XCTAssertEqual(spread(row["count"]!.int!, row["most"]!.int!), ints(row["chosen"]!)) }
    }

    func testLossesThatAreNoneAreRefused() {
        assertRefused(.option, "losses: expected as many after as before, found 1 and 2") { _ = try judge(before: [1, 2], after: [1]) }
        assertRefused(.dataEmpty, "losses: expected those of at least one example") { _ = try judge(before: [], after: []) }
        assertRefused(.lossNotFinite, "example 2 of 2: its loss before is nan") { _ = try judge(before: [1, .nan], after: [1, 1]) }
        assertRefused(.lossNotFinite, "example 1 of 2: its loss after is inf") { _ = try judge(before: [1, 1], after: [.infinity, 1]) }
    }
}
