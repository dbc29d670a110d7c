package lcsbmobile.core.io

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import java.io.File
import java.io.IOException
import java.nio.channels.FileChannel
import java.nio.file.AccessDeniedException
import java.nio.file.FileSystemException
import java.nio.file.Files
import java.nio.file.NoSuchFileException
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.nio.file.StandardOpenOption.CREATE_NEW
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.WRITE
import java.util.UUID

// Files and directories that are written whole or not at all.

/** Turns an IOException while writing below [path] into STORAGE_FULL or STORAGE_FAILED that names it. */
public fun <T> storing(path: File, write: () -> T): T =
    try {
        write()
    } catch (error: IOException) {
        val reason = reason(error)
        val full = FULL.any { it in reason }
        throw LcsbException(
            if (full) Fault.STORAGE_FULL else Fault.STORAGE_FAILED,
            "$path: cannot be written: $reason; free some space or choose another place",
            listOf(path.name),
            error,
        )
    }

/** Refuses what cannot be stored before it is begun: STORAGE_FULL, whose arguments are the bytes needed and free. */
public fun checkFreeSpace(directory: File, needed: Long) {
    val free = directory.usableSpace
    if (free < needed) {
        throw LcsbException(
            Fault.STORAGE_FULL,
            "$directory: the run needs ${megabytes(needed)} of storage, ${megabytes(free)} are free; free some space or choose another place",
            listOf(needed.toString(), free.toString()),
        )
    }
}

/** [write] fills a temporary file beside [file]; then it is synced and renamed over [file]. When it throws, [file] is as it was. */
public fun replaceAtomically(file: File, write: (FileChannel) -> Unit) {
    val temporary = beside(file)
    try {
        storing(file) {
            Files.createDirectories(temporary.parentFile.toPath())
            FileChannel.open(temporary.toPath(), CREATE_NEW, WRITE).use {
                write(it)
                it.force(true)
            }
            Files.move(temporary.toPath(), file.toPath(), ATOMIC_MOVE)
            syncDirectory(temporary.parentFile)
        }
    } finally {
        temporary.delete()
    }
}

/**
 * [fill] writes into a temporary directory beside [directory], which then takes its place. A crash leaves the old one under its name or
 * beside it, or the new one whole. [directory] must be absent, empty, or hold [marker]: nothing else is ever replaced (OPTION).
 */
internal fun replaceDirectory(directory: File, marker: String, fill: (File) -> Unit) {
    if (directory.exists() && !File(directory, marker).isFile && directory.list()?.isEmpty() != true) {
        throw LcsbException(
            Fault.OPTION,
            "$directory: already exists and has no $marker, so it is not replaced; choose another path",
            listOf(directory.name),
        )
    }
    val temporary = beside(directory)
    val aside = File("$temporary.old")
    try {
        storing(directory) {
            Files.createDirectories(temporary.toPath())
            fill(temporary)
            syncDirectory(temporary)
            if (directory.exists()) Files.move(directory.toPath(), aside.toPath(), ATOMIC_MOVE)
            Files.move(temporary.toPath(), directory.toPath(), ATOMIC_MOVE)
            syncDirectory(temporary.parentFile)
        }
    } finally {
        if (aside.exists() && !directory.exists()) aside.renameTo(directory)
        temporary.deleteRecursively()
        aside.deleteRecursively()
    }
}

/** Asks the system to put a directory's entries on the disk. */
internal fun syncDirectory(directory: File) = FileChannel.open(directory.toPath(), READ).use { it.force(true) }

/** Bytes as millions of them: "212.4 MB". */
internal fun megabytes(count: Long): String {
    val tenths = Math.round(count / 1e5)
    val whole = (tenths / 10).toString().reversed().chunked(3).joinToString(",").reversed()
    return "$whole.${tenths % 10} MB"
}

private val FULL = listOf("No space left on device", "ENOSPC", "Disk quota exceeded", "EDQUOT")

/** A name of its own that whoever has the directory may remove: it begins with a dot and [target]'s name. */
private fun beside(target: File): File = File(target.absoluteFile.parentFile, ".${target.name}.${UUID.randomUUID().toString().take(8)}")

private fun reason(error: IOException): String =
    when (error) {
        is AccessDeniedException -> "permission denied"
        is NoSuchFileException -> "no such directory"
        is FileSystemException -> error.reason ?: error.javaClass.simpleName
        else -> error.message ?: error.javaClass.simpleName
    }
