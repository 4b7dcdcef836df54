"""Pages of VMs, and of what they run on. Imported by AppConfig.ready(), which registers them."""
