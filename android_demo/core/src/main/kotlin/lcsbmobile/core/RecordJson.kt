package lcsbmobile.core

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonNamingStrategy

/** Our own files: snake_case names, an unknown or mistyped field is an error. Decoding a data class with it recurses no deeper than the class does. */
@OptIn(ExperimentalSerializationApi::class)
internal val recordJson = Json { namingStrategy = JsonNamingStrategy.SnakeCase }

/** What kotlinx.serialization found wrong, without the excerpt of the input that it adds. */
internal fun jsonFault(error: IllegalArgumentException): String = oneLine((error.message ?: "").substringBefore("\nJSON input:"))
