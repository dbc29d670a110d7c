import Foundation
import XCTest
@testable import LCSBKit

/// Every tokenizer against the library tokenizers, on what scripts/golden/write_tokenizer_golden.py wrote.
final class TokenizerGoldenTest: XCTestCase {
    /// In `ids` and `offsets` nil is what the style before has, in `decoded` the text.
    private struct Line {
        var text: String?
        var ids: [[Int]?] = []
        var decoded: [String?] = []
        var offsets: [[Int]?] = []
        var decode: [Int] = []
        var texts: [String] = []

        init(_ json: JsonReader) throws {
            try json.object { key in
                switch key {
                case "text": text = try json.string()
                case "ids": try json.array { ids.append(try Self.numbers(json)) }
                case "decoded": try json.array { decoded.append(try json.tree().string) }
                case "offsets": try json.array { offsets.append(try Self.numbers(json)) }
                case "decode": decode = try Self.numbers(json)!
                default: try json.array { texts.append(try json.string()) }
                }
            }
            try json.finish()
        }

        private static func numbers(_ json: JsonReader) throws -> [Int]? {
            if try json.peek() == UInt8(ascii: "n") {
                try json.skip()
                return nil
            }
            var numbers: [Int] = []
            try json.array { numbers.append(try json.int()) }
            return numbers
        }

        func ids(_ style: Int) -> [Int] { ids[...style].last { $0 != nil }!! }

        func offsets(_ style: Int) -> [Int] { offsets[...style].last { $0 != nil }!! }
    }

    private static let lines = Result {
        try gunzip(Repository.golden("tokenizers/golden.jsonl.gz")).split(separator: 0x0A).map { try Line(JsonReader($0)) }
    }
    private static let styles = ["qwen2", "llama3", "smollm2", "unknown", "gemma", "llama2"]

    private func samples() throws -> [(line: Line, text: String)] {
        try Self.lines.get().compactMap { line in line.text.map { (line, $0) } }
    }

    private func eachStyle(_ check: (Int, Tokenizer) throws -> Void) throws {
        for (style, name) in Self.styles.enumerated() { try check(style, goldenTokenizer(name)) }
    }

    func testThereAreTenThousandTexts() throws { XCTAssertEqual(try samples().count, 10_000) }

    func testIdsAreTheLibrarys() throws {
        try eachStyle { style, tokenizer in
            for (line, text) in try samples() {
                XCTAssertEqual(try tokenizer.encode(text), line.ids(style), "\(Self.styles[style]): \(shown(text))")
            }
        }
    }

    func testDecodedTextsAreTheLibrarys() throws {
        try eachStyle { style, tokenizer in
            for (line, text) in try samples() {
                assertSame(tokenizer.decode(line.ids(style)), line.decoded[style] ?? text, Self.styles[style])
            }
        }
    }

    func testIdsOfAnyBytesAreDecodedAsTheLibraryDoes() throws {
        try eachStyle { style, tokenizer in
            for line in try Self.lines.get() where line.text == nil {
                assertSame(tokenizer.decode(line.decode), line.texts[style], "\(Self.styles[style]) \(line.decode)")
            }
        }
    }

    /// Offsets of Python count code points. Where NFC changes a text, the library gives a character's place to its base alone and the
    /// marks' to what follows; both cover the text without gaps.
    func testOffsetsAreTheLibrarys() throws {
        try eachStyle { style, tokenizer in
            for (line, text) in try samples() where !line.offsets.isEmpty {
                let encoded = try tokenizer.encodeWithOffsets(text)
                XCTAssertEqual(encoded.ids, line.ids(style))
                if Self.styles[style] == "qwen2" && !isNormalized(text) { continue }
                let places = text.unicodeScalars.reduce(into: [0]) { $0.append($0.last! + UTF8.width($1)) }
                let found = zip(encoded.starts, encoded.ends).flatMap { [$0, $1] }
                XCTAssertEqual(found, line.offsets(style).map { places[$0] }, "\(Self.styles[style]): \(shown(text))")
            }
        }
    }

    func testTokensCoverANormalizedTextWithoutGaps() throws {
        let tokenizer = try goldenTokenizer("qwen2")
        for (_, text) in try samples() where !text.isEmpty {
            let encoded = try tokenizer.encodeWithOffsets(text)
            XCTAssertEqual(encoded.starts.first, 0)
            XCTAssertEqual(encoded.ends.last, text.utf8.count)
            for (start, end) in zip(encoded.starts.dropFirst(), encoded.ends) { XCTAssertLessThanOrEqual(start, end) }
        }
    }

    private func isNormalized(_ text: String) -> Bool {
        let utf8 = Array(text.utf8)
        return NfcNormalizer().normalize(NormalizedText(text: utf8, origin: 0)).text == utf8
    }
}
