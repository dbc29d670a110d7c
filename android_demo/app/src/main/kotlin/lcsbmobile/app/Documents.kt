package lcsbmobile.app

import android.content.ContentResolver
import android.net.Uri
import android.provider.OpenableColumns

/** Asks a document's provider, which is another app's code: whatever it throws, its document cannot be had, and SecurityException says so. */
fun <T> asking(uri: Uri, action: () -> T): T =
    try {
        action()
    } catch (error: SecurityException) {
        throw error
    } catch (error: RuntimeException) {
        throw SecurityException("$uri: $error", error)
    }

/** A document's name, and its size in bytes (0: unknown), as far as its provider says. */
fun describe(resolver: ContentResolver, uri: Uri): Pair<String, Long> = asking(uri) {
    val columns = arrayOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE)
    resolver.query(uri, columns, null, null, null)?.use { cursor ->
        if (!cursor.moveToFirst()) return@use null
        val (name, size) = columns.map { cursor.getColumnIndex(it) }
        val called = if (name < 0) null else cursor.getString(name)
        (called ?: uri.lastPathSegment.orEmpty()) to if (size < 0) 0 else maxOf(0, cursor.getLong(size))
    } ?: (uri.lastPathSegment.orEmpty() to 0L)
}
