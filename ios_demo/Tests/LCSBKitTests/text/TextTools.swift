import Foundation
import XCTest
@testable import LCSBKit

/// A tokenizer of tests/golden/tokenizers; `config` is its tokenizer_config.json.
func goldenTokenizer(_ style: String, _ config: String = "{}") throws -> Tokenizer {
    try openTokenizer(gunzip(Repository.golden("tokenizers/\(style).json.gz")), config)
}

func openTokenizer(_ tokenizer: [UInt8], _ config: String = "{}", _ vocabSize: Int = 1 << 20) throws -> Tokenizer {
    try inScratch { directory in
        try putTokenizer(tokenizer, config, directory)
        return try Tokenizer.open(directory, vocabSize)
    }
}

/// Writes a tokenizer's files. Anew and without Foundation, which waits for the disk.
func putTokenizer(_ tokenizer: [UInt8], _ config: String, _ directory: URL) throws {
    for (name, content) in [(Tokenizer.tokenizerFile, tokenizer), (Tokenizer.configFile, Array(config.utf8))] {
        let file = directory.appendingPathComponent(name)
        unlink(file.path)
        try content.withUnsafeBytes { try OpenFile(file, O_WRONLY | O_CREAT | O_EXCL).write($0) }
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

/// Equal byte by byte: XCTAssertEqual takes what is canonically equivalent for equal.
func assertSame(_ found: String, _ wanted: String, _ what: String = "", line: UInt = #line, file: StaticString = #filePath) {
    XCTAssertEqual(ByteText(found), ByteText(wanted), what, file: file, line: line)
}
