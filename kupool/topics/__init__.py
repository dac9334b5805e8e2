"""Topics: named logs with partitions that anybody may write to, and read from any offset.

A topic has partitions. A partition is a sequence of batches; a batch holds records. An engine
keeps batches and knows nothing of the records in them.
"""
