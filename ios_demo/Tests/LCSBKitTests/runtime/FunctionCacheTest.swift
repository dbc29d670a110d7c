import XCTest
@testable import LCSBKit

final class FunctionCacheTest: XCTestCase {
    private final class Function {}

    private func loads(_ cache: inout FunctionCache<Function>, _ names: [String], bytes: Int = 1) -> Int {
        var loads = 0
        for name in names {
            _ = cache.get(name, bytes: bytes) {
                loads += 1
                return Function()
            }
        }
        return loads
    }

    func testACircleThatFitsIsLoadedOnce() {
        var cache = FunctionCache<Function>(capacity: 10)
        let circle = (0..<10).map { "f\($0)" }
        XCTAssertEqual(loads(&cache, circle), 10)
        for _ in 0..<3 { XCTAssertEqual(loads(&cache, circle), 0) }
    }

    /// Where the one that was used longest ago gave way, nothing would ever be there.
    func testOfACircleThatDoesNotFitAboutWhatFitsIsThere() {
        var cache = FunctionCache<Function>(capacity: 6)
        let circle = (0..<10).map { "f\($0)" }
        XCTAssertEqual(loads(&cache, circle), 10)
        // No order of giving way can do with fewer than 10 * 4 / 9 on average.
        for _ in 0..<9 { XCTAssertTrue((4...5).contains(loads(&cache, circle))) }
        XCTAssertEqual(cache.names.count, 6)
    }

    func testWhatWasUsedOnceGivesWay() {
        var cache = FunctionCache<Function>(capacity: 6)
        _ = loads(&cache, (0..<6).map { "prefill\($0)" })
        let decode = (0..<5).map { "decode\($0)" }
        for _ in 0..<4 { _ = loads(&cache, decode) }
        XCTAssertEqual(loads(&cache, decode), 0)
    }

    func testOneThatIsLargerThanAllIsThereAlone() {
        var cache = FunctionCache<Function>(capacity: 6)
        _ = loads(&cache, ["a", "b"])
        XCTAssertEqual(loads(&cache, ["large", "large"], bytes: 100), 1)
        XCTAssertEqual(cache.names, ["large"])
        XCTAssertEqual(loads(&cache, ["a"]), 1)
        XCTAssertEqual(cache.names, ["a"])
    }

    func testAFunctionThatDoesNotLoadIsNotThere() {
        struct Failed: Error {}
        var cache = FunctionCache<Function>(capacity: 6)
        XCTAssertThrowsError(try cache.get("a", bytes: 1) { throw Failed() })
        XCTAssertEqual(cache.names, [])
        XCTAssertEqual(loads(&cache, ["a"]), 1)
    }

    func testWhatAFunctionIsTakenToHold() throws {
        var manifest = try inScratch { try TrainingBundle.open(CrossingBundle.write($0)).manifest }
        XCTAssertEqual(functionBytes(manifest, "give_forward"), 0)
        manifest.graphs["give_forward"]!.workingBytes = 1000
        manifest.graphs["give_forward"]!.initializers = [GraphTensor(name: "w", dtype: "uint8", shape: [3, 2], meaning: "", weight: "w")]
        XCTAssertEqual(functionBytes(manifest, "give_forward"), 1006)
    }
}
