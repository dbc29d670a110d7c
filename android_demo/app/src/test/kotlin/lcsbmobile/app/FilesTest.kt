package lcsbmobile.app

import android.content.ContentProvider
import android.content.ContentValues
import android.content.pm.ProviderInfo
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import android.provider.OpenableColumns
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import java.io.ByteArrayInputStream
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.util.concurrent.CancellationException
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** What comes into the app's storage, and what goes out of it. */
class FilesTest : AppTest() {
    private val shelf by lazy { DataShelf(temporary.newFolder("data")) }

    private fun add(bytes: ByteArray) = shelf.file(shelf.add(ByteArrayInputStream(bytes)) {}).readText()

    private fun fault(action: () -> Unit) = assertThrows(LcsbException::class.java, action).fault

    @Test fun `JSON lines are kept as they are, a text's lines become some`() {
        assertEquals("{\"text\": \"a\"}\n", add("{\"text\": \"a\"}\n".toByteArray()))
        assertEquals("\n {\"text\": \"ü\"}", add("\n {\"text\": \"ü\"}".toByteArray()))
        assertEquals("{\"text\": \"one \\\"1\\\"\"}\n{\"text\": \"zwei ü\"}\n", add("one \"1\"\r\nzwei ü".toByteArray()))
    }

    @Test fun `another encoding, nothing, and a stream that fails are refused`() {
        assertEquals(Fault.DATA_ENCODING, fault { add("für".toByteArray(Charsets.ISO_8859_1)) })
        assertEquals(Fault.DATA_ENCODING, fault { add("hello".toByteArray(Charsets.UTF_16)) })
        assertEquals(Fault.DATA_EMPTY, fault { add(ByteArray(0)) })
        assertEquals(Fault.DATA_EMPTY, fault { add(" \n \n".toByteArray()) })
        val broken = object : InputStream() {
            override fun read(): Int = throw IOException("cloud is away")
        }
        assertEquals(Fault.DATA_UNREADABLE, fault { shelf.add(broken) {} })
        assertThrows(CancellationException::class.java) { shelf.add(ByteArrayInputStream(ByteArray(10))) { throw CancellationException() } }
    }

    @Test fun `names go up, unused files go, and own messages are read again`() {
        val first = shelf.addTyped(listOf("a"))
        val second = shelf.addTyped(listOf("a", "line\nbreak \"q\""))
        assertEquals(listOf("1.jsonl", "2.jsonl"), listOf(first, second))
        assertEquals(listOf("a", "line\nbreak \"q\""), shelf.typed(second))
        shelf.keepOnly(setOf(second))
        assertFalse(shelf.file(first).exists())
        assertEquals("3.jsonl", shelf.addTyped(listOf("b")))
    }

    /** A document tree over a directory; a document's id is its path. */
    class Tree : ContentProvider() {
        lateinit var root: File

        override fun onCreate() = true

        override fun query(uri: Uri, projection: Array<String>?, selection: String?, arguments: Array<String>?, order: String?): Cursor {
            val document = document(uri)
            val files = if (uri.lastPathSegment == "children") document.listFiles()!!.sorted() else listOf(document)
            val cursor = MatrixCursor(projection)
            for (file in files) {
                val type = if (file.isDirectory) Document.MIME_TYPE_DIR else "application/octet-stream"
                cursor.addRow(arrayOf("/" + file.relativeTo(root).path, file.name, type, file.length()))
            }
            return cursor
        }

        override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor =
            ParcelFileDescriptor.open(document(uri), ParcelFileDescriptor.MODE_READ_ONLY)

        private fun document(uri: Uri) = File(root, DocumentsContract.getDocumentId(uri))

        override fun getType(uri: Uri) = null

        override fun insert(uri: Uri, values: ContentValues?) = null

        override fun update(uri: Uri, values: ContentValues?, selection: String?, arguments: Array<String>?) = 0

        override fun delete(uri: Uri, selection: String?, arguments: Array<String>?) = 0
    }

    private fun tree(root: File): Uri {
        val info = ProviderInfo().apply { authority = "test.documents" }
        Robolectric.buildContentProvider(Tree::class.java).create(info).get().root = root
        return DocumentsContract.buildTreeDocumentUri("test.documents", "/")
    }

    private fun copied(source: BundleSource): Set<String> {
        val directory = temporary.newFolder()
        var last = 0L to 0L
        source.copyTo(directory) { done, total -> last = done to total }
        if (last.second > 0) assertEquals(last.second, last.first)
        return directory.walk().filter { it.isFile }.map { it.relativeTo(directory).path }.toSet()
    }

    @Test fun `a picked tree is copied, also from the one directory in it`() {
        val root = temporary.newFolder("tree")
        val bundle = File(root, "smollm").apply { mkdirs() }
        File(bundle, "manifest.json").writeText("{}")
        File(bundle, "more").mkdirs()
        File(bundle, "more/weights.bin").writeText("123")
        assertEquals(setOf("manifest.json", "more/weights.bin"), copied(TreeSource(app.contentResolver, tree(root))))
        assertEquals(setOf("manifest.json", "more/weights.bin"), copied(TreeSource(app.contentResolver, tree(bundle))))
    }

    private fun zip(vararg entries: Pair<String, String>): ZipSource {
        val file = temporary.newFile()
        ZipOutputStream(file.outputStream()).use { zip ->
            for ((name, text) in entries) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(text.toByteArray())
            }
        }
        return ZipSource(app.contentResolver, Uri.fromFile(file), "smollm.zip")
    }

    @Test fun `a ZIP file is unpacked, and no path leads out of its directory`() {
        assertEquals("smollm", zip().name)
        assertEquals(setOf("manifest.json", "a.onnx"), copied(zip("manifest.json" to "{}", "a.onnx" to "1")))
        assertEquals(setOf("manifest.json", "a.onnx"), copied(zip("top/manifest.json" to "{}", "top/a.onnx" to "1")))
        assertEquals(Fault.BUNDLE_UNREADABLE, fault { copied(zip("../out" to "x")) })
        assertEquals(Fault.BUNDLE_UNREADABLE, fault { copied(zip("a/../../../out" to "x")) })
    }

    @Test fun `only a file in the share directory can be read, by its name`() {
        val directory = ShareProvider.directory(app).apply { mkdirs() }
        val file = File(directory, "tiny-adapter.zip").apply { writeText("zip") }
        File(app.cacheDir, "secret").writeText("s")
        val resolver = app.contentResolver
        val uri = ShareProvider.uri(file)
        assertEquals("zip", resolver.openInputStream(uri)!!.use { it.reader().readText() })
        assertEquals("application/zip", resolver.getType(uri))
        resolver.query(uri, arrayOf(OpenableColumns.SIZE, "other", OpenableColumns.DISPLAY_NAME), null, null, null)!!.use {
            assertTrue(it.moveToFirst())
            assertEquals(listOf("3", null, "tiny-adapter.zip"), (0..2).map(it::getString))
        }
        for (path in listOf("secret", "..%2Fsecret", "../secret", "", "share/x")) {
            val other = Uri.parse("content://lcsbmobile.app.share/$path")
            assertThrows(path, FileNotFoundException::class.java) { resolver.openInputStream(other) }
        }
        assertThrows(FileNotFoundException::class.java) { resolver.openFileDescriptor(uri, "rw") }
    }
}
