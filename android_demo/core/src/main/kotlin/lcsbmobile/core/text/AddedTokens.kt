package lcsbmobile.core.text

/**
 * A token that is cut out of a text before anything else. [special]: it is left out when tokens are decoded. [normalized]: it is looked for
 * in the normalised text.
 */
internal class AddedToken(val id: Int, val content: String, val special: Boolean, val normalized: Boolean)

/** Finds tokens in a text: the leftmost, of those the longest, then on behind it. */
internal class TokenFinder(tokens: List<Pair<String, Int>>) {
    private class Node(var id: Int = -1, val next: HashMap<Char, Node> = HashMap(2))

    private val root = Node()

    init {
        for ((content, id) in tokens) {
            var node = root
            for (character in content) node = node.next.getOrPut(character) { Node() }
            if (node !== root) node.id = id
        }
    }

    /** [piece] gets all of [text] in order: the ranges of tokens with their ids, and what lies between with -1. */
    fun split(text: String, piece: (start: Int, end: Int, id: Int) -> Unit) {
        var begun = 0
        var at = 0
        while (at < text.length) {
            val (end, id) = if (root.next.containsKey(text[at])) longest(text, at) else NONE
            if (id < 0) {
                at++
                continue
            }
            if (begun < at) piece(begun, at, -1)
            piece(at, end, id)
            at = end
            begun = end
        }
        if (begun < text.length) piece(begun, text.length, -1)
    }

    private fun longest(text: String, start: Int): Pair<Int, Int> {
        var found = NONE
        var node: Node? = root
        var at = start
        while (at < text.length) {
            node = node?.next?.get(text[at]) ?: break
            at++
            if (node.id >= 0) found = at to node.id
        }
        return found
    }

    private companion object {
        val NONE = 0 to -1
    }
}
