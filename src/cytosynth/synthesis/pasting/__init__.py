"""Copy-paste: real abnormal cells cut out under feathered masks and put into real normal images."""
