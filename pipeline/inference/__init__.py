"""What runs networks over images, whatever room they are from: engines, and tiles put together again."""
