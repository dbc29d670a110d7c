/// A token that is cut out of a text before anything else. `special`: it is left out when tokens are decoded. `normalized`: it is looked
/// for in the normalised text.
struct AddedToken: Sendable {
    let id: Int
    let content: [UInt8]
    let special: Bool
    let normalized: Bool
}

/// Finds tokens in a text: the leftmost, of those the longest, then on behind it.
struct TokenFinder: Sendable {
    private var next: [Int: Int32] = [:]  // node * 256 + byte -> node; 0 is the root
    private var ids: [Int32] = [-1]  // of the token that ends at a node, or -1
    private var begins = [Bool](repeating: false, count: 256)  // whether one begins with a byte

    init(_ tokens: [(content: [UInt8], id: Int)]) {
        for (content, id) in tokens where !content.isEmpty {
            var node = 0
            begins[Int(content[0])] = true
            for byte in content {
                let found = next[node << 8 | Int(byte)] ?? Int32(ids.count)
                if found == ids.count {
                    next[node << 8 | Int(byte)] = found
                    ids.append(-1)
                }
                node = Int(found)
            }
            ids[node] = Int32(id)
        }
    }

    /// `piece` gets all of `text` in order: the ranges of tokens with their ids, and what lies between with nil.
    func split(_ text: [UInt8], _ piece: (_ start: Int, _ end: Int, _ id: Int?) -> Void) {
        var begun = 0
        var at = 0
        while at < text.count {
            guard begins[Int(text[at])], let (end, id) = longest(text, at) else {
                at += 1
                continue
            }
            if begun < at { piece(begun, at, nil) }
            piece(at, end, id)
            at = end
            begun = end
        }
        if begun < text.count { piece(begun, text.count, nil) }
    }

    private func longest(_ text: [UInt8], _ start: Int) -> (end: Int, id: Int)? {
        var found: (Int, Int)?
        var node = 0
        for at in start..<text.count {
            guard let next = next[node << 8 | Int(text[at])] else { break }
            node = Int(next)
            if ids[node] >= 0 { found = (at + 1, Int(ids[node])) }
        }
        return found
    }
}
