"""The assistant over HTTP, in OpenAI's protocol: follows the registry, knows its callers, bounds what it takes on."""
