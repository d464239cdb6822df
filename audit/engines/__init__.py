"""Where the shards of a scan are read: in processes of this machine, or by Ray."""
