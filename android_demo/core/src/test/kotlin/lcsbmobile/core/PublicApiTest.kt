package lcsbmobile.core

import org.jetbrains.kotlin.abi.tools.AbiFilters
import org.jetbrains.kotlin.abi.tools.AbiTools
import org.junit.Assert.assertEquals
import org.junit.Test
import java.io.File

/** What core offers to others stands in `api/core.api`, in the form of Kotlin's own validation: a change of it is seen, and meant. */
class PublicApiTest {
    @Test
    fun `the public API is the recorded one`() {
        val classes = File(Bundle::class.java.protectionDomain.codeSource.location.toURI()).walk().filter { it.extension == "class" }
        val tools = AbiTools.getInstance(AbiTools::class.java.classLoader)
        val found = StringBuilder().also { tools.printJvmDump(it, classes.toList(), AbiFilters.EMPTY) }.toString()
        val recorded = File("api/core.api")
        if (System.getProperty("api.record") != null) recorded.apply { parentFile.mkdirs() }.writeText(found)
        assertEquals("if it is meant, record it: scripts/android/maven.sh -pl core test -Dtest=PublicApiTest -Dapi.record", recorded.readText(), found)
    }
}
