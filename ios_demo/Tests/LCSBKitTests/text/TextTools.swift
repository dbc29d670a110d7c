import Foundation
import XCTest
@testable import LCSBKit

/// A tokenizer of tests/golden/tokenizers; `config` is its tokenizer_config.json.
func goldenTokenizer(_ style: String, _ config: String = "{}") throws -> Tokenizer {
    try openTokenizer(gunzip(Repository.golden("tokenizers/\(style).json.gz")), config)
}

func openTokenizer(_ tokenizer: [UInt8], _ config: String = "{}", _ vocabSize: Int = 1 << 20) throws -> Tokenizer {
    try inScratch { directory in
        try Data(tokenizer).write(to: directory.appendingPathComponent(Tokenizer.tokenizerFile))
        try Data(config.utf8).write(to: directory.appendingPathComponent(Tokenizer.configFile))
        return try Tokenizer.open(directory, vocabSize)
    }
}

/// Of a file that Python's gzip.compress wrote.
func gunzip(_ file: URL) throws -> [UInt8] {
    #if canImport(Darwin)
    let content = try Data(contentsOf: file)
    return [UInt8](try (content.dropFirst(10).dropLast(8) as NSData).decompressed(using: .zlib) as Data)
    #else
    let gzip = Process()
    let output = Pipe()
    gzip.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    gzip.arguments = ["gzip", "-dc", file.path]
    gzip.standardOutput = output
    try gzip.run()
    let content = [UInt8](output.fileHandleForReading.readDataToEndOfFile())
    gzip.waitUntilExit()
    XCTAssertEqual(gzip.terminationStatus, 0, file.path)
    return content
    #endif
}

/// `act` must be refused with `fault` and a message that holds `part`, in one line.
func assertRefused(_ fault: Fault, _ part: String, line: UInt = #line, file: StaticString = #filePath, _ act: () throws -> Void) {
    let message = refusal(fault, file: file, line: line, act)
    XCTAssert(message.contains(part), "expected \"\(part)\" in: \(message)", file: file, line: line)
}

/// Equal byte by byte: XCTAssertEqual takes what is canonically equivalent for equal.
func assertSame(_ found: String, _ wanted: String, _ what: String = "", line: UInt = #line, file: StaticString = #filePath) {
    XCTAssertEqual(ByteText(found), ByteText(wanted), what, file: file, line: line)
}

extension Json {
    /// As it is written.
    var text: String {
        switch self {
        case .object(let members): "{" + members.map { "\(asciiJson($0.key)):\($0.value.text)" }.joined(separator: ",") + "}"
        case .array(let elements): "[" + elements.map(\.text).joined(separator: ",") + "]"
        case .string(let text): asciiJson(text)
        case .number(let number): number
        case .bool(let value): "\(value)"
        case .null: "null"
        }
    }
}
