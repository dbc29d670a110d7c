@testable import LCSBKit
import XCTest
@testable import AppModel

final class ProblemTest: XCTestCase {
    private func sentences(_ problem: Problem) throws -> [String] {
        try ["en", "de"].flatMap { language in
            let words = try catalog(language)
            return [problem.what(words), problem.todo(words)]
        }
    }

    func testEveryFaultIsSaidInTwoSentencesOfEachLanguage() throws {
        for fault in Fault.allCases {
            let said = try sentences(Problem(fault))
            XCTAssertNotEqual(said[0], said[2], "\(fault)")
            XCTAssertNotEqual(said[1], said[3], "\(fault)")
            for sentence in said {
                XCTAssertTrue(sentence.hasSuffix(".") && sentence.count > 10, "\(fault): \(sentence)")
                XCTAssertFalse(sentence.contains("%") || sentence.contains("fault_"), "\(fault): \(sentence)")
            }
        }
    }

    func testTheAppsOwnRefusalsAreSaidToo() throws {
        for problem in [Problem.access, .typedFull, .promptLong, .interrupted, .notifications] {
            for sentence in try sentences(problem) { XCTAssertTrue(sentence.hasSuffix(".") && !sentence.contains("problem_"), sentence) }
        }
    }

    func testNoTwoFaultsHaveTheSameSentence() throws {
        let words = try catalog("en")
        XCTAssertEqual(Set(Fault.allCases.map { Problem($0).what(words) }).count, Fault.allCases.count)
    }

    func testFiguresAreSaidWhereThereAreSome() throws {
        let (english, german) = (try catalog("en"), try catalog("de"))
        let memory = Problem(LcsbError(.memoryTooSmall, "…", ["212000000", "128000000"]))
        XCTAssertEqual(memory.what(english), "Training needs about 212 MB of memory and may take 128 MB.")
        XCTAssertEqual(memory.what(german), "Das Training braucht etwa 212 MB Speicher und darf 128 MB nutzen.")
        let storage = Problem(LcsbError(.storageFull, "…", ["1400000000", "3000000"]))
        XCTAssertEqual(storage.what(german), "Dafür sind 1,4 GB Speicherplatz nötig, und 3,0 MB sind frei.")
        XCTAssertEqual(Problem(LcsbError(.storageFull, "…", ["state"])).what(english), "There is not enough free storage.")
        let line = Problem(.dataLine, ["data.jsonl", "17"])
        XCTAssertEqual(line.what(english), "Line 17 of the file is not an example that can be learned from.")
        XCTAssertEqual(Problem(.dataLine).what(english), "A line of the file is not an example that can be learned from.")
    }

    func testWhatAModelNeedsIsNamed() throws {
        let (english, german) = (try catalog("en"), try catalog("de"))
        let older = Problem(LcsbError(.systemOlder, "…", ["iOS 27"]))
        XCTAssertEqual(older.what(english), "This model needs iOS 27 or newer.")
        XCTAssertEqual(older.what(german), "Dieses Modell braucht iOS 27 oder neuer.")
        let absent = Problem(LcsbError(.runtimeNotIncluded, "…", ["Core AI"]))
        XCTAssertEqual(absent.what(english), "This model is for Core AI, which is not in this app.")
        XCTAssertEqual(absent.what(german), "Dieses Modell ist für Core AI, das in dieser App nicht enthalten ist.")
    }

    func testRuntimesAreCalledAsPeopleCallThem() throws {
        let words = try catalog("en")
        let names = ["onnxruntime", "executorch", "coreai", "coreml", "other"].map(words.runtime)
        XCTAssertEqual(names, ["ONNX Runtime", "ExecuTorch", "Core AI", "Core ML", "other"])
    }

    func testWhatIsNoFaultOfLCSBKitsIsSaidTooWithItsDetails() throws {
        let words = try catalog("en")
        XCTAssertEqual(Problem(IoError("I/O error")).fault, .storageFailed)
        XCTAssertEqual(Problem(IoError(28)).fault, .storageFull)
        XCTAssertEqual(Problem(AccessLost(path: "/x")).what(words), "The app may no longer read this file or folder.")
        XCTAssertEqual(Problem(TypedFull()).what(words), "There is no room here for more messages.")
        XCTAssertEqual(Problem(LcsbError(.option, "prompt: …", ["prompt"])).what(words), "The message is too long for this model.")
        struct Odd: Error {}
        let unexpected = Problem(Odd())
        XCTAssertEqual(unexpected.what(words), "Something went wrong that the app did not expect.")
        XCTAssertTrue(unexpected.detail!.contains("Odd"))
    }
}
