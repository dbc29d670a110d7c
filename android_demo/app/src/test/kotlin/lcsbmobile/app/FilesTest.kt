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
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
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

    private class Broken : InputStream() {
        override fun read(): Int = throw IOException("cloud is away")
    }

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
        assertEquals(Fault.DATA_UNREADABLE, fault { shelf.add(Broken()) {} })
        assertThrows(CancellationException::class.java) { shelf.add(ByteArrayInputStream(ByteArray(10))) { throw CancellationException() } }
        var calls = 0
        val lines = ByteArrayInputStream("a\nb\nc\n".toByteArray())
        assertThrows(CancellationException::class.java) { shelf.add(lines) { if (++calls == 3) throw CancellationException() } }
        assertEquals("cancelled among the lines", 0, shelf.file(".").list()!!.size)
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

    @Test fun `what is not the person's own messages is not taken for them, and more than can be read again is refused`() {
        for (line in listOf("{\"messages\": [{\"role\": \"user\"}]}", "{\"prompt\": \"a\", \"completion\": \"b\"}", "[1]", "{", "")) {
            shelf.file("1.jsonl").apply { parentFile!!.mkdirs() }.writeText(line + "\n")
            assertNull(line, shelf.typed("1.jsonl"))
        }
        val most = List(16) { "x".repeat(1 shl 20) }
        val full = assertThrows(DataShelf.Full::class.java) { shelf.addTyped(most) }
        assertEquals("There is no room for more messages.", Problem.of(full).what(english()))
        assertEquals(listOf("1.jsonl"), shelf.file(".").list()!!.toList())
        val name = shelf.addTyped(most.drop(1))
        assertEquals(15, shelf.typed(name)!!.size)
    }

    @Test fun `a bundle that cannot be listed does not stay, nor what a killed process left`() {
        val directory = temporary.newFolder("bundles")
        val library = BundleLibrary(directory, Engine(temporary.newFolder()))
        File(directory, "tiny.json").mkdirs() // in the way of the file of that name
        File(directory, "tiny.json/x").writeText("")
        assertThrows(LcsbException::class.java) { library.add(DirectorySource(File(bundles, "tiny"))) {} }
        assertEquals(listOf("tiny.json"), directory.list()!!.toList())
        File(directory, "tiny.json").deleteRecursively()
        library.add(DirectorySource(File(bundles, "tiny"))) {}
        for (left in listOf(".incoming", ".incoming-inner", "llama")) File(directory, left).mkdirs()
        library.tidy()
        assertEquals(setOf("tiny", "tiny.json"), directory.list()!!.toSet())
    }

    /** A provider that says little of its documents, or fails. */
    class Odd : ContentProvider() {
        override fun onCreate() = true

        override fun query(uri: Uri, projection: Array<String>?, selection: String?, arguments: Array<String>?, order: String?): Cursor {
            if (uri.lastPathSegment == "fails") error("no such row")
            return MatrixCursor(arrayOf(OpenableColumns.DISPLAY_NAME)).apply { addRow(arrayOf("notes.txt")) }
        }

        override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor = throw FileNotFoundException("in the cloud")

        override fun getType(uri: Uri) = null

        override fun insert(uri: Uri, values: ContentValues?) = null

        override fun update(uri: Uri, values: ContentValues?, selection: String?, arguments: Array<String>?) = 0

        override fun delete(uri: Uri, selection: String?, arguments: Array<String>?) = 0
    }

    @Test fun `a provider that fails or says no size is the document's fault`() {
        Robolectric.buildContentProvider(Odd::class.java).create(ProviderInfo().apply { authority = "test.odd" })
        val (plain, fails) = Uri.parse("content://test.odd/1") to Uri.parse("content://test.odd/fails")
        assertEquals("notes.txt" to 0L, describe(app.contentResolver, plain))
        assertEquals(Fault.BUNDLE_UNREADABLE, fault { copied(ZipSource(app.contentResolver, plain)) })
        assertThrows(SecurityException::class.java) { ZipSource(app.contentResolver, fails).name }
        app.data.import(plain)
        waitFor("the problem") { state.problem != null && state.reading == null }
        assertEquals(Fault.DATA_UNREADABLE, state.problem!!.fault)
        app.data.import(fails)
        waitFor("another") { state.problem?.fault == null && state.reading == null }
        assertEquals("The app is no longer allowed to read this file or folder.", state.problem!!.what(english()))
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
        return ZipSource(app.contentResolver, Uri.fromFile(file))
    }

    @Test fun `a ZIP file is unpacked, and no path leads out of its directory`() {
        val named = temporary.newFile("smollm.zip")
        assertEquals("smollm", ZipSource(app.contentResolver, Uri.fromFile(named)).name)
        val broken = Uri.parse("content://broken/smollm.zip")
        shadowOf(app.contentResolver).registerInputStreamSupplier(broken) { Broken() }
        assertEquals(Fault.BUNDLE_UNREADABLE, fault { copied(ZipSource(app.contentResolver, broken)) })
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
