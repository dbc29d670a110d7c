import Foundation

/// The sentences of a string catalog read as it stands, in one of its languages: for what runs outside of an app, such as tests.
public struct CatalogWords: Words {
    private struct Catalog: Decodable {
        struct Entry: Decodable { var localizations: [String: Localization]? }
        struct Localization: Decodable {
            var stringUnit: Unit?
            var variations: Variations?
        }
        struct Variations: Decodable { var plural: [String: Plural]? }
        struct Plural: Decodable { var stringUnit: Unit }
        struct Unit: Decodable { var value: String }

        var strings: [String: Entry]
    }

    /// Of a sentence: `other` where it has one form only.
    public let forms: [String: [String: String]]
    public let locale: Locale

    public init(_ catalog: URL, language: String) throws {
        locale = Locale(identifier: language)
        forms = try JSONDecoder().decode(Catalog.self, from: Data(contentsOf: catalog)).strings.compactMapValues { entry in
            guard let found = entry.localizations?[language] else { return nil }
            return found.variations?.plural?.mapValues(\.stringUnit.value) ?? found.stringUnit.map { ["other": $0.value] }
        }
    }

    /// The key itself where there is no such sentence.
    public func say(_ key: String, _ words: [Word]) -> String {
        guard let forms = forms[key], let other = forms["other"] else { return key }
        let isOne = words.contains(.count(1))
        return fill(isOne ? forms["one"] ?? other : other, words.map { word in
            switch word {
            case .text(let text): text
            case .count(let count): self.count(count)
            }
        })
    }

    /// `%@` and `%lld` in order, `%2$@` by its number.
    private func fill(_ sentence: String, _ words: [String]) -> String {
        let parts = sentence.components(separatedBy: "%")
        var (filled, next, index) = (parts[0], 0, 1)
        while index < parts.count {
            let part = parts[index]
            if part.isEmpty && index + 1 < parts.count {  // %%
                filled += "%" + parts[index + 1]
                index += 2
                continue
            }
            let number = part.prefix { $0.isNumber }
            let isNumbered = !number.isEmpty && part.dropFirst(number.count).first == "$"
            let place = isNumbered ? part.dropFirst(number.count + 1) : Substring(part)
            let at = isNumbered ? Int(number)! - 1 : next
            next += isNumbered ? 0 : 1
            let mark = ["@", "lld"].first { place.hasPrefix($0) } ?? ""
            filled += (words.indices.contains(at) ? words[at] : "%") + place.dropFirst(mark.count)
            index += 1
        }
        return filled
    }
}
