import Foundation
import XCTest
@testable import LCSBKit

/// This checkout, whose golden files the tests of all languages read.
enum Repository {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func golden(_ name: String) -> URL { root.appendingPathComponent("tests/golden").appendingPathComponent(name) }
}

/// The bundles that scripts/testing/export_test_bundles.py wrote.
enum TestBundles {
    static let directory = URL(fileURLWithPath: ProcessInfo.processInfo.environment["LCSB_TEST_BUNDLES"] ?? "\(Repository.root.path)/build/device-bundles")

    /// All of them, sorted by name. There is no test without them.
    static let directories: [URL] = {
        let found = listed(directory).map(directory.appendingPathComponent).filter { isFile($0.appendingPathComponent("manifest.json")) }
        precondition(!found.isEmpty, "\(directory.path): no bundles; write them with make device-bundles, or set LCSB_TEST_BUNDLES")
        return found
    }()
}

/// A directory that is gone afterwards.
func inScratch<Result>(_ use: (URL) throws -> Result) throws -> Result {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    return try use(directory)
}

/// What `act` throws, which must be of `fault` and one printable line.
@discardableResult
func refusal(_ fault: Fault, file: StaticString = #filePath, line: UInt = #line, _ act: () throws -> Void) -> String {
    do {
        try act()
    } catch let error as LcsbError {
        XCTAssertEqual(error.fault, fault, error.message, file: file, line: line)
        XCTAssertLessThan(error.message.count, 4000, file: file, line: line)
        XCTAssertEqual(printable(error.message.unicodeScalars), error.message, "no printable line", file: file, line: line)
        return error.message
    } catch {
        XCTFail("expected \(fault), found \(error)", file: file, line: line)
        return ""
    }
    XCTFail("expected \(fault), nothing was thrown", file: file, line: line)
    return ""
}

/// As `refusal`; what it says must hold `part`.
@discardableResult
func assertRefused(_ fault: Fault, _ part: String, file: StaticString = #filePath, line: UInt = #line, _ act: () throws -> Void) -> String {
    let message = refusal(fault, file: file, line: line, act)
    XCTAssert(message.contains(part), "expected \"\(part)\" in: \(message)", file: file, line: line)
    return message
}

/// An array of whole numbers.
func ints(_ value: Json) -> [Int] { value.array!.map { $0.int! } }
