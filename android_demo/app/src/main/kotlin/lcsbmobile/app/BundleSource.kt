package lcsbmobile.app

import android.content.ContentResolver
import android.content.res.AssetManager
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import lcsbmobile.core.io.storing
import java.io.File
import java.io.FilterInputStream
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipInputStream

const val MANIFEST = "manifest.json"
private const val MOST_FILES = 1000
private const val MOST_DEPTH = 4

/**
 * Where a bundle comes from. Each throws BUNDLE_UNREADABLE where it cannot be read, STORAGE_FULL and STORAGE_FAILED where [copyTo] cannot
 * be written.
 */
interface BundleSource {
    /** What to call it. */
    val name: String

    /** By what it is found again after the process has ended, if it is. */
    val origin: Uri? get() = null

    /** Where it lies, if it can be used there and need not be copied. */
    val place: File? get() = null

    /**
     * Copies all files into a directory that is empty or has some of them, whole or in part: those that the manifest says to be whole are not
     * copied again. [progress]: bytes done and in all (0: unknown); it may throw to stop.
     */
    fun copyTo(directory: File, progress: (Long, Long) -> Unit)
}

/** The tiny bundle that rides in the APK. */
class AssetSource(private val assets: AssetManager, override val name: String) : BundleSource {
    override fun copyTo(directory: File, progress: (Long, Long) -> Unit) {
        val files = assets.list(name).orEmpty()
        val copier = Copier(directory, files.sumOf { assets.open("$name/$it").use { opened -> opened.available().toLong() } }, progress)
        files.forEach { copier.copy(it) { assets.open("$name/$it") } }
    }
}

/** A directory of the app's own, such as one that adb wrote. */
class PlacedSource(override val place: File) : BundleSource {
    override val name: String get() = place.name

    override fun copyTo(directory: File, progress: (Long, Long) -> Unit) = error("it is used where it lies")
}

/** A directory of files that the app can read. */
class DirectorySource(private val source: File) : BundleSource {
    override val name: String get() = source.name

    override fun copyTo(directory: File, progress: (Long, Long) -> Unit) {
        val found = source.walkTopDown().maxDepth(MOST_DEPTH).filter { it.isFile }.take(MOST_FILES)
        val files = found.sortedByDescending { it.name == MANIFEST }.toList()
        val copier = Copier(directory, files.sumOf { it.length() }, progress)
        files.forEach { copier.copy(it.relativeTo(source).path) { it.inputStream() } }
    }
}

/** A directory tree that the person picked. Where it holds one directory and no manifest.json, that one is meant. */
class TreeSource(private val resolver: ContentResolver, private val tree: Uri) : BundleSource {
    private class Entry(val id: String, val name: String, val directory: Boolean, val size: Long)

    override val origin get() = tree

    override val name: String by lazy {
        val root = DocumentsContract.buildDocumentUriUsingTree(tree, DocumentsContract.getTreeDocumentId(tree))
        query(root).firstOrNull()?.name ?: "bundle"
    }

    override fun copyTo(directory: File, progress: (Long, Long) -> Unit) {
        var root = DocumentsContract.getTreeDocumentId(tree)
        val top = children(root)
        if (top.none { it.name == MANIFEST }) top.singleOrNull { it.directory }?.let { root = it.id }
        val files = mutableListOf<Pair<String, Entry>>()
        collect(root, "", 1, files)
        val copier = Copier(directory, files.sumOf { it.second.size }, progress)
        for ((path, entry) in files.sortedByDescending { it.first == MANIFEST }) {
            val uri = DocumentsContract.buildDocumentUriUsingTree(tree, entry.id)
            copier.copy(path) { asking(uri) { resolver.openInputStream(uri) } }
        }
    }

    private fun collect(id: String, path: String, depth: Int, files: MutableList<Pair<String, Entry>>) {
        for (entry in children(id)) {
            if (files.size == MOST_FILES) return
            if (!entry.directory) files += path + entry.name to entry
            if (entry.directory && depth < MOST_DEPTH) collect(entry.id, "$path${entry.name}/", depth + 1, files)
        }
    }

    private fun children(id: String) = query(DocumentsContract.buildChildDocumentsUriUsingTree(tree, id))

    private fun query(uri: Uri): List<Entry> {
        val columns = arrayOf(Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME, Document.COLUMN_MIME_TYPE, Document.COLUMN_SIZE)
        val entries = asking(uri) {
            resolver.query(uri, columns, null, null, null)?.use {
                generateSequence { if (it.moveToNext()) it else null }.map { row ->
                    Entry(row.getString(0), row.getString(1).orEmpty(), row.getString(2) == Document.MIME_TYPE_DIR, row.getLong(3))
                }.toList()
            }
        }
        return entries ?: throw unreadable("$uri")
    }
}

/** A ZIP file that the person picked, with the bundle's files at the top or in one directory. */
class ZipSource(private val resolver: ContentResolver, private val uri: Uri) : BundleSource {
    override val origin get() = uri

    override val name: String by lazy { describe(resolver, uri).first.removeSuffix(".zip") }

    override fun copyTo(directory: File, progress: (Long, Long) -> Unit) {
        val copier = Copier(directory, 0, progress)
        try {
            ZipInputStream(asking(uri) { resolver.openInputStream(uri) } ?: throw unreadable(name)).use { zip ->
                for (entry in generateSequence { next(zip) }.take(MOST_FILES)) {
                    if (!entry.isDirectory) copier.copy(entry.name) { NotClosed(zip) }
                }
            }
        } catch (error: IOException) {
            throw unreadable(name, error) // what cannot be written is no IOException any more
        }
        liftSingleDirectory(directory)
    }

    private fun next(zip: ZipInputStream) =
        try {
            zip.nextEntry
        } catch (error: IllegalArgumentException) {
            throw unreadable(name, error) // an entry's name is not text
        }

    private class NotClosed(stream: InputStream) : FilterInputStream(stream) {
        override fun read(bytes: ByteArray, offset: Int, length: Int): Int = `in`.read(bytes, offset, length)

        override fun close() = Unit
    }

    private fun liftSingleDirectory(directory: File) {
        if (File(directory, MANIFEST).exists()) return
        val inner = directory.listFiles().orEmpty().singleOrNull { it.isDirectory } ?: return
        val aside = File(directory.parentFile, directory.name + "-inner")
        storing(directory) {
            val lifted = inner.renameTo(aside) && directory.deleteRecursively() && aside.renameTo(directory)
            if (!lifted) throw IOException("cannot be renamed")
        }
    }
}
