import Foundation
import XCTest
@testable import LCSBKit

final class FilesTest: XCTestCase {
    private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    func testAWriteThatFailsInTheMiddleLeavesWhatWasThere() throws {
        try inScratch { scratch in
            let file = scratch.file("kept")
            try file.write("old")
            for (code, fault) in [(ENOSPC, Fault.storageFull), (EDQUOT, .storageFull), (EIO, .storageFailed)] {
                let message = refusal(fault) {
                    try replaceAtomically(file) {
                        try bytes("half").withUnsafeBytes($0.write)
                        throw IoError(code)
                    }
                }
                let reason = String(cString: strerror(code))
                XCTAssertEqual("\(file.path): cannot be written: \(reason); free some space or choose another place", message)
                XCTAssertEqual(bytes("old"), try file.content)
                XCTAssertEqual(["kept"], listed(scratch))
            }
            try replaceAtomically(file) { try bytes("new").withUnsafeBytes($0.write) }
            XCTAssertEqual(bytes("new"), try file.content)
            XCTAssertEqual(["kept"], listed(scratch))
        }
    }

    func testADirectoryIsReplacedWholeAndOnlyOneOfItsKind() throws {
        try inScratch { scratch in
            let directory = scratch.file("out")
            try replaceDirectory(directory, marker: "marker") { try $0.file("marker").write("1") }
            try replaceDirectory(directory, marker: "marker") {
                try $0.file("marker").write("2")
                try $0.file("more").write("2")
            }
            XCTAssertEqual(["marker", "more"], listed(directory))
            refusal(.storageFailed) { try replaceDirectory(directory, marker: "marker") { _ in throw IoError("broken") } }
            XCTAssertEqual(bytes("2"), try directory.file("marker").content)
            let message = refusal(.option) { try replaceDirectory(directory, marker: "other") { _ in XCTFail("it was filled") } }
            XCTAssertEqual("\(directory.path): already exists and has no other, so it is not replaced; choose another path", message)
            XCTAssertEqual(["out"], listed(scratch))
        }
    }

    func testWhatThereIsNoRoomForIsRefusedBeforeItIsBegun() throws {
        try inScratch { scratch in
            try checkFreeSpace(scratch, 1000)
            let message = refusal(.storageFull) { try checkFreeSpace(scratch, 1 << 60) }
            XCTAssert(message.hasPrefix("\(scratch.path): the run needs 1,152,921,504,606.8 MB of storage, "), message)
        }
    }

    func testNumbersAndTextsArePythons() throws {
        let vectors = try Json(content: Repository.golden("run_vectors.json").content)
        for golden in vectors["doubles"]!.array! {
            let value = golden["value"]!.double!
            XCTAssertEqual(golden["repr"]!.string!, pythonRepr(value))
            XCTAssertEqual(golden["msgspec"]!.string!, msgspecDouble(value))
        }
        for golden in vectors["texts"]!.array! { XCTAssertEqual(golden["json"]!.string!, asciiJson(golden["text"]!.string!)) }
        XCTAssertGreaterThan(vectors["doubles"]!.array!.count + vectors["texts"]!.array!.count, 20)
    }

    func testMegabytesArePythons() {
        XCTAssertEqual(["0.0 MB", "0.1 MB", "212.4 MB", "1,234.6 MB"], [0, 51_000, 212_400_000, 1_234_567_890].map(megabytes))
        XCTAssertEqual(["0.0 MB", "0.1 MB", "9,223,372,036,854.8 MB"], [49_999, 50_000, Int.max].map(megabytes))
    }

    func testSha256IsOfAllTheBytesHoweverTheyCome() throws {
        XCTAssertEqual("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", sha256([UInt8]()))
        XCTAssertEqual("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", sha256(bytes("abc")))
        let content = (0..<5000).map { UInt8($0 % 251) }
        for step in [1, 55, 63, 64, 65, 1000] {
            var digest = Sha256()
            for start in stride(from: 0, to: content.count, by: step) {
                Array(content[start..<min(start + step, content.count)]).withUnsafeBytes { digest.update($0) }
            }
            XCTAssertEqual(sha256(content), digest.hex(), "\(step)")
        }
    }
}
