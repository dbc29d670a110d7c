package lcsbmobile.app

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Context
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException

/** Lets another app read one file that the person shared with it: those in the cache's `share` directory, by name, and nothing else. */
class ShareProvider : ContentProvider() {
    override fun onCreate() = true

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        if (mode != "r") throw FileNotFoundException("$uri: can only be read")
        return ParcelFileDescriptor.open(file(uri), ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun getType(uri: Uri): String = typeOf(uri.lastPathSegment.orEmpty())

    override fun query(uri: Uri, projection: Array<String>?, selection: String?, arguments: Array<String>?, order: String?): Cursor {
        val file = file(uri)
        val columns = projection ?: arrayOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE)
        val row = columns.map {
            when (it) {
                OpenableColumns.DISPLAY_NAME -> file.name
                OpenableColumns.SIZE -> file.length()
                else -> null
            }
        }
        return MatrixCursor(columns, 1).apply { addRow(row) }
    }

    private fun file(uri: Uri): File {
        val directory = directory(context!!)
        val file = File(directory, uri.pathSegments.singleOrNull() ?: throw FileNotFoundException("$uri: no such file"))
        if (file.canonicalFile.parentFile != directory.canonicalFile || !file.isFile) throw FileNotFoundException("$uri: no such file")
        return file
    }

    override fun insert(uri: Uri, values: ContentValues?): Uri? = throw UnsupportedOperationException()

    override fun update(uri: Uri, values: ContentValues?, selection: String?, arguments: Array<String>?): Int =
        throw UnsupportedOperationException()

    override fun delete(uri: Uri, selection: String?, arguments: Array<String>?): Int = throw UnsupportedOperationException()

    companion object {
        private const val AUTHORITY = "lcsbmobile.app.share"

        fun directory(context: Context) = File(context.cacheDir, "share")

        fun uri(file: File): Uri = Uri.Builder().scheme("content").authority(AUTHORITY).appendPath(file.name).build()

        fun typeOf(name: String) = if (name.endsWith(".zip")) "application/zip" else "application/json"
    }
}
