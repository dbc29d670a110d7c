import Foundation

/// What fills a sentence's places: `%@`, or the count that decides between singular and plural, `%lld`.
public enum Word: Sendable, Equatable {
    case text(String)
    case count(Int)
}

/// The app's sentences in the person's language, by the string catalog's keys.
public protocol Words: Sendable {
    /// How figures are written; of the language of the sentences.
    var locale: Locale { get }

    func say(_ key: String, _ words: [Word]) -> String
}

extension Words {
    public func callAsFunction(_ key: String) -> String { say(key, []) }
    public func callAsFunction(_ key: String, _ count: Word) -> String { say(key, [count]) }
    public func callAsFunction(_ key: String, _ text: String, _ more: String...) -> String { say(key, ([text] + more).map(Word.text)) }
}

#if canImport(Darwin)
/// Those of the app, as Xcode compiled them from the catalog.
public struct AppWords: Words {
    public init() {}

    public var locale: Locale { Locale(identifier: Bundle.main.preferredLocalizations.first ?? "en") }

    public func say(_ key: String, _ words: [Word]) -> String {
        let format = Bundle.main.localizedString(forKey: key, value: nil, table: nil)
        return String(format: format, locale: locale, arguments: words.map { word -> any CVarArg in
            switch word {
            case .text(let text): text as NSString
            case .count(let count): count
            }
        })
    }
}
#endif
