import Foundation
import XCTest
@testable import LCSBKit

/// What a tokenizer's files say beside ids of texts, and files that are refused.
final class TokenizerTest: XCTestCase {
    private let model = #""model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}"#

    private func open(_ content: String, _ config: String = "{}", _ vocabSize: Int = 100) throws -> Tokenizer {
        try openTokenizer(Array(content.utf8), config, vocabSize)
    }

    private func unsupported(_ what: String, _ content: String, line: UInt = #line) {
        assertRefused(.tokenizerUnsupported, "tokenizer.json: \(what): not supported", line: line) { _ = try open(content) }
    }

    private func damaged(_ what: String, _ content: String, _ config: String = "{}", _ vocabSize: Int = 100, line: UInt = #line) {
        assertRefused(.tokenizerDamaged, what, line: line) { _ = try open(content, config, vocabSize) }
    }

    /// `model` with more of its own members.
    private func more(_ members: String) -> String { "{\(model.dropLast()), \(members)}}" }

    func testWhereDocumentsBeginAndEnd() throws {
        let settings = #""bos_token": {"content": "<|begin_of_text|>"}, "eos_token": "<|eot_id|>", "eos_token_id": [7, 3001]"#
        let tokenizer = try goldenTokenizer("llama3", #"{"chat_template": [{}], \#(settings)}"#)
        let (begin, end) = (try tokenizer.encode("<|begin_of_text|>"), try tokenizer.encode("<|eot_id|>"))
        XCTAssertEqual([begin.count, end.count], [1, 1])
        XCTAssertEqual([tokenizer.bosId, tokenizer.eosId, tokenizer.padId], [begin[0], end[0], end[0]])
        XCTAssertEqual(tokenizer.endIds, [7, 3001, end[0]])
        XCTAssertEqual(try tokenizer.encodePrompt("Hi"), try begin + tokenizer.encode("Hi"))
        XCTAssertEqual(try tokenizer.encodeDocument("Hi"), try begin + tokenizer.encode("Hi") + end)
        let without = try goldenTokenizer("llama3", #"{\#(settings), "add_bos_token": false}"#)
        XCTAssertEqual(try without.encodePrompt("Hi"), try tokenizer.encode("Hi"))
        XCTAssertEqual(tokenizer.decode(try tokenizer.encodeDocument("Hi")), "Hi")
        XCTAssertEqual(tokenizer.decode(try tokenizer.encodeDocument("Hi"), specialTokens: true), "<|begin_of_text|>Hi<|eot_id|>")
    }

    func testWithoutTokensOfBeginningAndEnd() throws {
        let tokenizer = try goldenTokenizer("qwen2")
        XCTAssertEqual([tokenizer.bosId, tokenizer.eosId, tokenizer.padId], [nil, nil, 0])
        XCTAssertEqual(try tokenizer.encodeDocument("Hi"), try tokenizer.encode("Hi"))
        XCTAssertEqual(try tokenizer.encodeContinuation(" Hi"), try tokenizer.encode(" Hi"))
        XCTAssertEqual(try tokenizer.encode(""), [])
        let named = try goldenTokenizer("qwen2", #"{"bos_token": "<|im_start|>"}"#)  // which its post-processor does not add
        XCTAssertEqual(try named.encodePrompt("Hi"), try named.encode("Hi"))
    }

    func testTheBundlesTokenizers() throws {
        for name in ["tiny", "llama", "qwen2", "gemma3"] {
            let tokenizer = try Tokenizer.open(TestBundles.directory.appendingPathComponent(name), 512)
            XCTAssertEqual(tokenizer.decode(try tokenizer.encodeDocument("memory")), "memory", name)
            XCTAssertEqual(tokenizer.endIds.subtracting([258]), [try XCTUnwrap(tokenizer.eosId)])
        }
    }

    func testHalvesOfPairsAreReplaced() throws {
        let tokenizer = try goldenTokenizer("qwen2")
        let text = String(decoding: [0x61, 0xD83D, 0x62, 0xDE00] as [UInt16], as: UTF16.self)
        assertSame(tokenizer.decode(try tokenizer.encode(text)), "a\u{FFFD}b\u{FFFD}")
    }

    /// Swift's strings are equal where these differ.
    func testTokensAreBytes() throws {
        let vocabulary = #"{"\u00e9": 0, "e": 1, "\u0301": 2, "e\u0301": 3, "\r": 4, "\n": 5, "\r\n": 6, "K": 7, "\u212a": 8}"#
        let tokenizer = try open(#"{"model": {"vocab": \#(vocabulary), "merges": [["e", "\u0301"], ["\r", "\n"]]}}"#)
        XCTAssertEqual(try tokenizer.encode("\u{E9}e\u{301}\r\n\u{212A}K\u{301}"), [0, 3, 6, 8, 7, 2])
        assertSame(tokenizer.decode([0, 3, 6, 8, 7]), "\u{E9} e\u{301} \r\n \u{212A} K")
        let added = #""added_tokens": [{"id": 9, "content": "\u00e5"}, {"id": 10, "content": "a\u030a"}]"#
        XCTAssertEqual(try open("{\(model), \(added)}").encode("a\u{30A}\u{E5}a\u{30A}\u{301}"), [10, 9, 10])
    }

    func testMergesInBothSpellings() throws {
        XCTAssertEqual(try open("{\(model)}").encode("abc"), [2, 3])
        XCTAssertEqual(try open("{\(model.replacingOccurrences(of: #"["a b"]"#, with: #"[["a", "b"]]"#))}").encode("abc"), [2, 3])
    }

    func testAWordOfTheVocabularyThatNoMergesMake() throws {
        let whole = model.replacingOccurrences(of: #""c": 3"#, with: #""c": 3, "abc": 4"#)
        XCTAssertEqual(try open("{\(whole)}").encode("abc"), [2, 3])
        XCTAssertEqual(try open(#"{\#(whole.dropLast()), "ignore_merges": true}}"#).encode("abc"), [4])
    }

    func testWhatTheVocabularyDoesNotHave() throws {
        func encoded(_ settings: String) throws -> Encoded {
            try open(#"{"model": {"vocab": {"?": 0, "a": 1}, "merges": [], \#(settings)}}"#).encodeWithOffsets("\u{E9}ya")
        }
        let apart = try encoded(#""unk_token": "?""#)
        XCTAssertEqual([apart.ids, apart.starts, apart.ends], [[0, 0, 1], [0, 2, 3], [2, 3, 4]])
        let fused = try encoded(#""unk_token": "?", "fuse_unk": true"#)
        XCTAssertEqual([fused.ids, fused.starts, fused.ends], [[0, 1], [0, 3], [3, 4]])
        XCTAssertEqual(try encoded(#""fuse_unk": true"#).ids, [1])
    }

    /// As many of one letter as a line may have, and a character with as many marks.
    func testLongWords() throws {
        let word = String(repeating: "ab", count: 1 << 19)
        XCTAssertEqual(try open("{\(model)}").encode(word), [Int](repeating: 2, count: 1 << 19))
        let marks = String(repeating: "\u{301}\u{323}", count: 1 << 17)  // of the classes 230 and 220
        let tokenizer = try goldenTokenizer("qwen2")
        let most = (1 << 17) - 1
        let sorted = "\u{1EB9}" + String(repeating: "\u{323}", count: most) + String(repeating: "\u{301}", count: most + 1)
        XCTAssertEqual(try tokenizer.encode("e\(marks)"), try tokenizer.encode(sorted))
    }

    func testSeveralThreadsMayEncode() throws {
        let tokenizer = try goldenTokenizer("qwen2")
        let texts = (0..<64).map { "layer \($0) gradient of the memory \($0 * 7)" }
        let wanted = try texts.map(tokenizer.encode)
        let found = Locked([[Int]](repeating: [], count: texts.count))
        DispatchQueue.concurrentPerform(iterations: texts.count) { number in
            for _ in 0..<20 {
                let ids = try? tokenizer.encode(texts[number])
                found.with { $0[number] = ids ?? [] }
            }
        }
        XCTAssertEqual(found.with { $0 }, wanted)
    }

    func testKindsThatAreRefused() {
        unsupported("a model of the type 'Unigram'", #"{"model": {"type": "Unigram", "vocab": {}}}"#)
        unsupported("a model that is not BPE", #"{"model": {"vocab": [["a", 0.5]]}}"#)
        unsupported("a model of the type 'WordLevel'", "{\(model.replacingOccurrences(of: "BPE", with: "WordLevel"))}")
        unsupported("dropout", more(#""dropout": 0.1"#))
        unsupported("end_of_word_suffix", more(#""end_of_word_suffix": "</w>""#))
        unsupported("model with 'extra'", more(#""extra": 1"#))
        unsupported("merges that stand before the vocabulary", #"{"model": {"merges": [], "vocab": {"a": 0}}}"#)
        unsupported("the part 'more'", #"{"more": 1}"#)
        func part(_ what: String, _ part: String, line: UInt = #line) { unsupported(what, "{\(model), \(part)}", line: line) }
        part("the normalizer 'Lowercase'", #""normalizer": {"type": "Lowercase"}"#)
        let replace = #"{"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"}]}"#
        part("the normalizer Replace of a regular expression", #""normalizer": \#(replace)"#)
        part("the pre-tokenizer 'Metaspace'", #""pre_tokenizer": {"type": "Metaspace"}"#)
        part("the pre-tokenizer ByteLevel with add_prefix_space", #""pre_tokenizer": {"type": "ByteLevel"}"#)
        func split(_ pattern: String, _ more: String) -> String {
            #""pre_tokenizer": {"type": "Split", "pattern": {\#(pattern)}, \#(more)}"#
        }
        part("the pre-tokenizer Split of '(?i)x'", split(#""Regex": "(?i)x""#, #""behavior": "Isolated", "invert": false"#))
        part("the pre-tokenizer Split of the kind 'Removed'", split(#""String": " ""#, #""behavior": "Removed", "invert": false"#))
        part("the pre-tokenizer Split with invert", split(#""String": " ""#, #""behavior": "MergedWithPrevious", "invert": true"#))
        let bytes = #"{"type": "ByteLevel", "add_prefix_space": false}"#
        let digits = #"{"type": "Digits"}"#
        part("a pre-tokenizer behind ByteLevel", #""pre_tokenizer": {"type": "Sequence", "pretokenizers": [\#(bytes), \#(digits)]}"#)
        part("the post-processor 'BertProcessing'", #""post_processor": {"type": "BertProcessing"}"#)
        part("the decoder 'WordPiece'", #""decoder": {"type": "WordPiece"}"#)
        part("added token 'x' with lstrip", #""added_tokens": [{"id": 9, "content": "x", "lstrip": true}]"#)
    }

    func testFilesThatAreRefused() throws {
        func changed(_ old: String, _ new: String) -> String { "{\(model.replacingOccurrences(of: old, with: new))}" }
        damaged("tokenizer.json: not a readable tokenizer: ends too early at byte 0", "")
        damaged("expected the end at byte", "{\(model)} x")
        damaged("a merge with 'x', which is not in the vocabulary,", changed(#""a b""#, #""a x""#))
        damaged("a merge that does not have two parts", changed(#""a b""#, #""a b c""#))
        damaged("a merge that does not have two parts", changed(#""a b""#, #"["a"]"#))
        damaged("'a' and 'c' have the number 0", changed(": 3", ": 0"))
        damaged("token 'c' has the number 524288, outside 0 to 524287,", changed(": 3", ": 524288"))
        damaged("expected a whole number below 2^31, found 0.5", changed(": 3", ": 0.5"))
        damaged("the model has no merges", #"{"model": {"vocab": {"a": 0}}}"#)
        damaged("unk_token '?' is not in the vocabulary", more(#""unk_token": "?""#))
        damaged("added token 'x' has the number 1, the vocabulary another", #"{\#(model), "added_tokens": [{"id": 1, "content": "x"}]}"#)
        damaged("added token 'a' has the number 7, the vocabulary another", #"{\#(model), "added_tokens": [{"id": 7, "content": "a"}]}"#)
        damaged("an added token of the number 1e9", #"{\#(model), "added_tokens": [{"id": 1e9, "content": "x"}]}"#)
        damaged("a value of too many parts", #"{\#(model), "normalizer": \#(String(repeating: "[", count: 100_000))"#)
        damaged("a value of too many parts", #"{\#(model), "normalizer": [\#(String(repeating: "1,", count: 100_000))"#)
        damaged("a value nested too deep", #"{\#(model), "padding": \#(String(repeating: "[", count: 100_000))"#)
        damaged("a string of more than 1048576 bytes", "{\"" + String(repeating: "a", count: 1_100_000))
        damaged("normalizer: has no type", #"{\#(model), "normalizer": {}}"#)
        damaged("normalizer: expected an object", #"{\#(model), "normalizer": [1]}"#)
        damaged("eos_token '</s>' is not a token of tokenizer.json", "{\(model)}", #"{"eos_token": "</s>"}"#)
        damaged(#"bos_token: expected a string or {"content": string}, found '3'"#, "{\(model)}", #"{"bos_token": 3}"#)
        damaged("eos_token_id: expected a number or a list of numbers", "{\(model)}", #"{"eos_token_id": ["x"]}"#)
        damaged("bos_token: token 3 ('c') is outside the model's vocabulary of 3", "{\(model)}", #"{"bos_token": "c"}"#, 3)
        let small = try open("{\(model)}", "{}", 3)
        assertRefused(.tokenizerDamaged, "token 3 ('c') is outside the model's vocabulary of 3") { _ = try small.encode("abc") }
        _ = try inScratch { folder in assertRefused(.tokenizerDamaged, "no such file") { _ = try Tokenizer.open(folder, 3) } }
    }

    /// A tokenizer of every kind of part with each value replaced by others: Swift would end the process where a reader goes too far.
    func testChangedFilesAreReadOrRefused() throws {
        let bytes = #"{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}"#
        let templates = """
            "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [5]}}},
            "added_tokens": [{"id": 5, "content": "<s>", "special": true}, {"id": 6, "content": "aé", "normalized": true}]
            """
        let level = """
            {"model": {"type": "BPE", "unk_token": "c", "fuse_unk": true, "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "Ġ": 4},
                "merges": ["a b"]}, "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, \(bytes)]},
            "decoder": {"type": "ByteLevel"}, \(templates)}
            """
        let fallback = """
            {"model": {"vocab": {"a": 0, "b": 1, "ab": 2, "<0xC3>": 3, "<0xA9>": 4}, "merges": [["a", "b"]], "byte_fallback": true},
            "normalizer": {"type": "Replace", "pattern": {"String": "b"}, "content": "ab"},
            "pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "MergedWithPrevious", "invert": false},
            "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
                {"type": "ByteFallback"}, {"type": "Fuse"}]}, \(templates)}
            """
        let tokens = #""bos_token": {"content": "<s>"}, "eos_token": "<s>", "pad_token": "b""#
        let config = #"{\#(tokens), "eos_token_id": [1, 2], "add_bos_token": true}"#
        let others = ["null", "true", "-1", "0", "524287", "0.5", "1e400", #""""#, #""ab""#, "[]", "{}", #"["a", "b"]"#, #"{"type": "x"}"#]
        try inScratch { folder in
            var (read, refused) = (0, 0)
            func check(_ file: String, _ config: String) throws {
                try putTokenizer(Array(file.utf8), config, folder)
                do {
                    let tokenizer = try Tokenizer.open(folder, 7)
                    _ = tokenizer.decode(try tokenizer.encodeDocument("<s>abaé12 e\u{301}<s>"), specialTokens: true)
                    let ids = try tokenizer.encodeWithOffsets("xaéab").ids
                    _ = tokenizer.decode(ids + [-1, 7, 1 << 40])
                    read += 1
                } catch let error as LcsbError {
                    XCTAssert([.tokenizerDamaged, .tokenizerUnsupported].contains(error.fault), error.message)
                    refused += 1
                }
            }
            for other in try others.map(Json.init(text:)) {
                for file in [level, fallback] { try eachChange(of: Json(text: file), to: other) { try check($0.text, config) } }
                try eachChange(of: Json(text: config), to: other) { try check(level, $0.text) }
            }
            XCTAssert(read > 100 && refused > 500, "\(read) read, \(refused) refused")
        }
    }

    /// `tree` with each of its values in turn replaced.
    private func eachChange(of tree: Json, to other: Json, _ use: (Json) throws -> Void) throws {
        try use(other)
        switch tree {
        case .object(let members):
            for (place, member) in members.enumerated() {
                try eachChange(of: member.value, to: other) { value in
                    var changed = members
                    changed[place].value = value
                    try use(.object(changed))
                }
            }
        case .array(let elements):
            for (place, element) in elements.enumerated() {
                try eachChange(of: element, to: other) { value in
                    var changed = elements
                    changed[place] = value
                    try use(.array(changed))
                }
            }
        default: break
        }
    }
}
