import Foundation
import XCTest
@testable import AppModel

/// The string catalog, and how figures are written.
final class WordsTest: XCTestCase {
    private func places(_ sentence: String) -> [String] {
        sentence.components(separatedBy: "%").dropFirst().map { part in
            let number = part.prefix { $0.isNumber || $0 == "$" }
            return "%\(number)" + (part.dropFirst(number.count).hasPrefix("lld") ? "lld" : String(part.dropFirst(number.count).prefix(1)))
        }.sorted()
    }

    func testBothLanguagesHaveEverySentenceWithTheSamePlacesToFill() throws {
        let (english, german) = (try catalog("en").forms, try catalog("de").forms)
        XCTAssertEqual(Set(english.keys), Set(german.keys))
        for (key, forms) in english {
            let there = try XCTUnwrap(german[key], key)
            XCTAssertEqual(Set(forms.keys), Set(there.keys), key)
            for (form, sentence) in forms {
                XCTAssertFalse(sentence.isEmpty, key)
                XCTAssertEqual(places(sentence), places(there[form] ?? ""), key)
                XCTAssertEqual(places(sentence), places(forms["other"] ?? ""), "\(key): one and other")
            }
            XCTAssertTrue(forms.count == 1 || forms["one"] != nil, key)
        }
    }

    /// A plural's count is its one place, so that the system knows what decides.
    func testPluralsHaveOnePlace() throws {
        for (key, forms) in try catalog("en").forms where forms.count > 1 { XCTAssertEqual(places(forms["other"]!), ["%lld"], key) }
        for (key, forms) in try catalog("en").forms where forms.count == 1 { XCTAssertFalse(places(forms["other"]!).contains("%lld"), key) }
    }

    /// Every key that the sources name is in the catalog, with as many places as it is given words.
    func testEverySentenceThatIsSaidIsThere() throws {
        let forms = try catalog("en").forms
        let sources = repository.appendingPathComponent("ios_demo/Sources/AppModel")
        var found = 0
        for case let file as URL in FileManager.default.enumerator(at: sources, includingPropertiesForKeys: nil)! where file.pathExtension == "swift" {
            let parts = try String(contentsOf: file, encoding: .utf8).components(separatedBy: "words(\"").dropFirst()
            for part in parts {
                let key = String(part.prefix { $0 != "\"" })
                if key.contains("\\(") { continue }  // held below
                found += 1
                XCTAssertNotNil(forms[key], "\(key) of \(file.lastPathComponent)")
            }
        }
        XCTAssertGreaterThan(found, 80)
        for phase in RunPhase.allCases { XCTAssertNotNil(forms["phase_\(phase.rawValue)"]) }
        for thermal in Thermal.allCases where thermal != .unknown { XCTAssertNotNil(forms["thermal_\(thermal)"]) }
        for destination in Destination.allCases { XCTAssertNotNil(forms[destination.title]) }
    }

    func testFiguresAreWrittenAsTheLanguageWritesThem() throws {
        let (english, german) = (try catalog("en"), try catalog("de"))
        XCTAssertEqual(english.count(1234), "1,234")
        XCTAssertEqual(german.count(1234), "1.234")
        XCTAssertEqual(english.decimal(2.345, digits: 2), "2.34")
        XCTAssertEqual(german.decimal(2.5, digits: 2), "2,50")
        XCTAssertEqual(english.decimal(.nan, digits: 2), "–")
        XCTAssertEqual(english.percent(20), "20%")
        XCTAssertEqual(english.bytes(500), "1 kB")
        XCTAssertEqual(english.bytes(3_000_000), "3.0 MB")
        XCTAssertEqual(english.bytes(212_000_000), "212 MB")
        XCTAssertEqual(german.bytes(1_400_000_000), "1,4 GB")
        XCTAssertEqual(english.seconds(0.5), "0.50 s")
        XCTAssertEqual(english.duration(20), "less than a minute")
        XCTAssertEqual(english.duration(60), "1 minute")
        XCTAssertEqual(german.duration(60 * 89), "89 Minuten")
        XCTAssertEqual(german.duration(3600 * 2), "2 Stunden")
    }

    func testPlacesAreFilledInOrderAndByNumber() throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).xcstrings")
        defer { try? FileManager.default.removeItem(at: file) }
        let unit = #"{"localizations": {"en": {"stringUnit": {"state": "translated", "value": "%2$@ of %1$@, 100 %% of %@"}}}}"#
        try Data(#"{"sourceLanguage": "en", "version": "1.0", "strings": {"key": \#(unit)}}"#.utf8).write(to: file)
        let words = try CatalogWords(file, language: "en")
        XCTAssertEqual(words("key", "a%@", "b"), "b of a%@, 100 % of a%@")
        XCTAssertEqual(words("missing"), "missing")
    }

    func testTicksEncloseTheLosses() {
        XCTAssertEqual(LossChartData.ticks(1.2, 3.9), [1, 2, 3, 4])
        XCTAssertEqual(LossChartData.ticks(2, 2).count, 3)
        for (low, high) in [(0.001, 0.0011), (1.0, 1000.0), (3.2, 3.4)] {
            let ticks = LossChartData.ticks(low, high)
            XCTAssertTrue((3...6).contains(ticks.count), "\(ticks)")
            XCTAssertTrue(ticks.first! <= low && ticks.last! >= high)
        }
    }

    func testTheCurveAndTheLayersInWords() throws {
        let words = try catalog("en")
        var run = RunState(phase: .training, steps: 8)
        XCTAssertEqual(LossChartData(run, words).spoken, "The curve appears with the first steps.")
        run.training = [LossPoint(1, 3.5), LossPoint(2, .nan), LossPoint(3, 2.25)]
        run.evaluation = [LossPoint(0, 3.6), LossPoint(3, 2.5)]
        let chart = LossChartData(run, words)
        XCTAssertEqual(chart.spoken, "Training loss over 3 steps: from 3.500 to 2.250. On held-out examples: from 3.600 to 2.500.")
        XCTAssertEqual(chart.training.map(\.step), [1, 3])
        XCTAssertEqual(chart.labels, ["2.0", "2.5", "3.0", "3.5", "4.0"])
        XCTAssertEqual(chart.current, "2.25")
        XCTAssertEqual(LayerStripData.ranges([0, 1, 2, 4]), "1–3, 5")
        let layers = LayerStripData([.trained, .trained, .passed, .skipped], running: 1, words)
        XCTAssertEqual(layers.spoken, "4 layers. Trained now: 1–2. Passed through: 3.")
        XCTAssertEqual(LayerStripData([.skipped], running: -1, words).spoken, "No layer is at work.")
    }
}
